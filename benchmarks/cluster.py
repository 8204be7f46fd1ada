"""The images and the compiled pipelines in containers: `python -m benchmarks cluster`, after `make images`.

The pipelines are those that `holdfast compile` writes. Each step runs as its pod is written: not as root, with a
read-only root, without capabilities and, but for the steps that ask MLflow, without a network. The driver keeps the
rules of Kubeflow's launcher (`tests/images`); no kubelet and no Kubeflow takes part. A second build, with nothing from
the first one's cache, is made under the tag `again`.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from benchmarks import linters
from benchmarks.process_tree import spent
from benchmarks.scenes import Bench
from benchmarks.table import ROOT, Row, at_least, at_most, shown
from holdfast.containers import ENVIRONMENTS
from holdfast.errors import RunError
from holdfast_pipelines.wiring import CACHE_SECRET
from tests.images import engine
from tests.images.driver import StandInCluster, Task, on_this_machine
from tests.images.scene import (
    OWN_EACH_TIME,
    PYTHONS,
    RETRAIN,
    compile_for_containers,
    mlflow_server,
    retrain,
    roll_out,
)
from tests.manifests.started import STARTED
from tests.node.node import BINARIES

DATA_GB = 2.2
TOGETHER_GB = 2.3
OVERHEAD = 0.10
NIGHT = 0.25
CACHE = "cache"
AGAIN = "again"
GB = 1e9


@dataclass(frozen=True)
class BothWays:
    """A step in its container and without one."""

    step: str
    equal: bool
    inside: float
    """CPU-seconds of the container."""
    outside: float
    """Those of the process."""


def run(bench: Bench) -> list[Row]:
    """Builds, sizes, a retraining with its rollout, digests and costs.

    Raises:
        RunError: no engine or no images are here.
    """
    del bench
    if reason := engine.missing():
        raise RunError(reason)
    with TemporaryDirectory(prefix="holdfast-bench-") as place:
        return [*_builds(), *_sizes(), *_pipelines(Path(place)), _pods(), _node(), *_linters()]


# --- manifests --------------------------------------------------------------------------------------------------------


def _pods() -> Row:
    """How many of the pods of manifests/ start as a kubelet starts them."""
    tests = [f"tests/manifests/{test}" for test in STARTED.values()]
    started, _ = _passed(tests, {"HOLDFAST_ENGINE": str(engine.engine())})
    what = f"pod specs of manifests/ that start and work under a kubelet's rules, of {len(tests)}"
    how = "users, groups, modes, read-only roots, limits and tokens as written; tests/manifests/started.py"
    return at_least(what, started, len(tests), how)


def _node() -> Row:
    """The same and the steps of retrain on a kubelet, where the programs of a node are here."""
    if BINARIES not in os.environ:
        return shown("jobs and services on a node with a kubelet", "not run", f"{BINARIES} names no folder")
    passed, of = _passed(["tests/node"], {}, str(ROOT / "tools" / "private-namespaces"))
    how = "make cluster-test: kubelet 1.20.2, containerd, MLflow on PostgreSQL, the overlay prod, a signed retraining"
    return at_least(f"tests of jobs and services on a node with a kubelet that pass, of {of}", passed, of, how)


def _passed(tests: list[str], env: dict[str, str], *before: str) -> tuple[int, int]:
    """How many tests pass, and how many there are."""
    with TemporaryDirectory() as folder:
        seen = Path(folder) / "seen.xml"
        words = [*before, sys.executable, "-m", "pytest", "-q", "-n", "0", f"--junitxml={seen}", *tests]
        subprocess.run(words, cwd=ROOT, env={**os.environ, **env}, check=False)
        cases = list(ElementTree.parse(seen).getroot().iter("testcase"))
    return sum(not len(case.findall("*")) for case in cases), len(cases)


def _linters() -> list[Row]:
    return [linters.checkov(), linters.hadolint(), linters.zizmor(), linters.actionlint()]


# --- images -----------------------------------------------------------------------------------------------------------


def _builds() -> list[Row]:
    pairs = {name: (engine.image(name), engine.image(name).rpartition(":")[0] + f":{AGAIN}") for name in ENVIRONMENTS}
    for environment, (_, again) in pairs.items():
        if _engine("image", "inspect", again).returncode:
            words = [str(ROOT / "tools" / "build-images"), environment]
            subprocess.run(words, check=True, cwd=ROOT, env={**os.environ, "TAG": AGAIN, "CACHE": "no"})
    equal = [name for name, pair in pairs.items() if _equal(*pair)]
    ids = [name for name, (one, other) in pairs.items() if _inspect(one)["Id"] == _inspect(other)["Id"]]
    how = f"make images, and again with CACHE=no; tools/compare_images.py; the same image id too: {len(ids)}"
    return [at_least("images of which two builds of one commit hold the same files, of 3", len(equal), 3, how)]


def _equal(one: str, other: str) -> bool:
    command = [sys.executable, str(ROOT / "tools" / "compare_images.py"), one, other, f"--engine={engine.engine()}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _sizes() -> list[Row]:
    data, model, serving = (_layers(engine.image(name)) for name in ("data", "model", "serving"))
    together = sum({**model, **serving}.values())
    shared = sum(size for layer, size in model.items() if layer in serving)
    base = "the stand-in" if "stand-in" in json.dumps(_inspect(engine.image("data"))) else "python:3.11-slim"
    how = f"layers on disk, uncompressed, on {base}"
    return [
        at_most("data, GB on disk", sum(data.values()) / GB, DATA_GB, how),
        at_most("model and serving, GB on disk together", together / GB, TOGETHER_GB, how),
        shown("of which layers that both have, GB", shared / GB, how),
    ]


def _layers(image: str) -> dict[str, float]:
    """Bytes of each layer."""
    sizes = [in_bytes(line) for line in _engine("history", "--format={{.Size}}", image).stdout.splitlines()]
    filled = [size for size in reversed(sizes) if size]
    layers = _inspect(image)["RootFS"]["Layers"]
    if len(layers) != len(filled):
        raise RunError(f"{image}: expected the sizes of {len(layers)} layers, found {len(filled)}")
    return dict(zip(layers, filled, strict=True))


def in_bytes(size: str) -> float:
    """An engine's `1.14 GB` or `11.3kB` as bytes.

    Raises:
        RunError: it is not a size.
    """
    found = re.fullmatch(r"([0-9.]+) ?([kMGT]?)B", size.strip())
    if found is None:
        raise RunError(f"expected a size such as 1.14 GB, found {size!r}")
    return float(found[1]) * 1000.0 ** " kMGT".index(found[2] or " ")


def _inspect(image: str) -> dict[str, Any]:
    found = json.loads(_engine("image", "inspect", image).stdout)
    return dict(found[0])


def _engine(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(engine.engine()), *words], capture_output=True, text=True, check=False)


# --- pipelines --------------------------------------------------------------------------------------------------------


def _pipelines(folder: Path) -> list[Row]:
    for name in ("compiled", "mlflow"):
        (folder / name).mkdir()
    compile_for_containers(folder / "compiled")
    with mlflow_server(folder / "mlflow") as tracking:
        tasks = retrain(folder / "compiled", tracking, StandInCluster(folder / "run"))
        # Before the rollout: it moves the champion, and what `baseline` finds with it.
        pairs = [_both_ways(step.name, step.environment, tasks, folder) for step in RETRAIN if step.name in tasks]
        rolled = roll_out(folder / "compiled", tracking, StandInCluster(folder / "rollout"))
        night = _night(folder, tracking)
    return [*_end_to_end(tasks, rolled), *_compared([pair for pair in pairs if pair]), night]


def _end_to_end(tasks: dict[str, Task], rolled: Task) -> list[Row]:
    done = [step.name for step in RETRAIN if tasks[step.name].state == "succeeded"]
    promoted = int(rolled.state == "succeeded" and rolled.parameters["verdict"] == "pass")
    peak = max(task.ended.peak or 0 for task in [*tasks.values(), rolled] if task.ended)
    how = "digits, holdfast compile, a real MLflow server, one container after the other, 0 changes by hand"
    return [
        at_least(
            f"steps of retrain that end well in their containers, of {len(RETRAIN)}", len(done), len(RETRAIN), how
        ),
        at_least("the registered version is promoted by the rollout's container (1: yes)", promoted, 1, how),
        shown("memory of the largest container, MiB", peak / 2**20, "of its control group, page cache included"),
    ]


def _both_ways(step: str, environment: str, tasks: dict[str, Task], folder: Path) -> BothWays | None:
    task = tasks[step]
    if step in OWN_EACH_TIME or task.ended is None:
        return None
    again = on_this_machine(task, folder / f"{step}-again")
    command = [str(PYTHONS[environment]), *again.command[1:]]
    cost = spent(command, cwd=again.folder, log=again.folder / "log.txt")
    if cost.code:
        raise RunError(f"{step}: expected it to end well without a container, found exit code {cost.code}")
    return BothWays(step, again.output("digest") == task.parameters["digest"], task.ended.cpu or 0.0, cost.cpu)


def _compared(pairs: list[BothWays]) -> list[Row]:
    inside, outside = sum(pair.inside for pair in pairs), sum(pair.outside for pair in pairs)
    each = ", ".join(f"{pair.step} {pair.inside:.1f}/{pair.outside:.1f}" for pair in pairs)
    equal = sum(pair.equal for pair in pairs)
    what = f"steps whose digest is the one without a container, of {len(pairs)}"
    how = "the same command on this machine, in the environment of the same lock; register's names MLflow's run"
    return [
        at_least(what, equal, len(pairs), how),
        at_most(
            "CPU-seconds that the containers add, share",
            inside / outside - 1,
            OVERHEAD,
            f"control group of the container / process tree, without the engine's own: {each}",
        ),
    ]


def _night(folder: Path, tracking: str) -> Row:
    """What a second run on the same delivery costs, with a cache volume."""
    for name in ("cached", CACHE):
        (folder / name).mkdir()
    (folder / CACHE).chmod(0o777)
    compile_for_containers(folder / "cached", cache_volume=CACHE)
    claims, secrets = {CACHE: folder / CACHE}, {CACHE_SECRET: {"key": token_hex(32)}}
    places = [StandInCluster(folder / name, claims=claims, secrets=secrets) for name in ("first", "second")]
    first, second = (retrain(folder / "cached", tracking, place) for place in places)
    ran = sorted(name for name, task in second.items() if task.ended and "reused" not in task.ended.log)
    how = f"retrain twice, {_cpu(first):.1f} and {_cpu(second):.1f} CPU-seconds; the second time ran: {', '.join(ran)}"
    what = "unchanged night in containers, share of the first run's CPU-seconds"
    return at_most(what, _cpu(second) / _cpu(first), NIGHT, how)


def _cpu(tasks: dict[str, Task]) -> float:
    return sum(task.ended.cpu or 0.0 for task in tasks.values() if task.ended)
