import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("kfp", reason="the pipelines need kfp (environment .venv)")

from kfp import dsl

from holdfast import containers
from holdfast.reuse import Cache
from holdfast_pipelines.local import Machine

# A step in miniature: a real artifact, its digest and verdict, and whatever its settings tell it to do.
STEP = """
import json, os, signal, subprocess, sys
from pathlib import Path
from holdfast.artifacts.documents import Baseline
from holdfast.artifacts.folder import Ref, load, save
given = dict(word[2:].split("=", 1) for word in sys.argv[1:])
does = json.loads(given["config"])
inputs = {"model": load(Ref.parse(given["model"]), Baseline).digest} if "model" in given else {}
print("\\x1b[31mreading\\x1b[0m", *sorted(inputs))
with open(does.get("diary", "/dev/null"), "a") as diary:
    diary.write(does["name"] + "\\n")
given_bytes = does.get("bytes", "x" * 9).encode()
exec(does.get("code", ""))
if does.get("exit"):
    print("out of luck")
    sys.exit(does["exit"])
done = save(Path(given["out"]), Baseline(name=does["name"], present=False, inputs=inputs), {"x.bin": given_bytes})
Path(given["digest-file"]).write_text(done.digest)
Path(given["verdict-file"]).write_text(does.get("verdict", "pass"))
"""


@dsl.container_component
def first(
    config: str, artifact: dsl.Output[dsl.Model], digest: dsl.OutputPath(str), verdict: dsl.OutputPath(str)
) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-c", STEP],
        args=[
            f"--config={config}",
            f"--out={artifact.path}",
            f"--digest-file={digest}",
            f"--verdict-file={verdict}",
            "--executor-input={{$}}",
        ],
    )


@dsl.container_component
def second(
    model: dsl.Input[dsl.Model],
    model_digest: str,
    config: str,
    artifact: dsl.Output[dsl.Model],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-c", STEP],
        args=[
            f"--model={model.path}@{model_digest}",
            f"--config={config}",
            f"--out={artifact.path}",
            f"--digest-file={digest}",
            f"--verdict-file={verdict}",
            "--executor-input={{$}}",
        ],
    )


@dsl.pipeline(name="two-steps")
def two_steps(one: str, two: str) -> None:
    """The second step runs unless the first one's verdict is fail."""
    made = first(config=one)
    with dsl.If(made.outputs["verdict"] != "fail"):
        second(model=made.outputs["artifact"], model_digest=made.outputs["digest"], config=two)


@pytest.fixture
def pipeline() -> object:
    return two_steps


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Machine]:
    """Machines that share one cache; their images stand for this very interpreter."""

    def make(name: str = "run", **settings: object) -> Machine:
        pythons = {containers.MODEL: Path(sys.executable)}
        cache = Cache(tmp_path / "cache")
        return Machine(**{"out": tmp_path / name, "pythons": pythons, "cache": cache, **settings})

    return make
