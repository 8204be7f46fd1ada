"""Small real models: an untrained CNN for 8 x 8 pictures, saved as the train step saves it, with a decision on it."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from holdfast.artifacts.documents import (
    Architecture,
    Check,
    Count,
    GateDecision,
    InputSpec,
    Model,
    ThreatModel,
    Verdict,
)
from holdfast.artifacts.folder import save

SPEC = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")
CLASSES = tuple("0123456789")


def write_bundle(
    folder: Path,
    *,
    seed: int,
    verdict: Verdict = Verdict.PASS,
    judged: str | None = None,
    classes: tuple[str, ...] = CLASSES,
) -> Path:
    """A bundle as the registry gives it: model/, decision/, replay.npz."""
    from safetensors.torch import save as tensors

    from holdfast.model.networks import build
    from holdfast.workload import NetworkConfig

    network = build(NetworkConfig(architecture="cnn"), SPEC, len(classes), seed=seed)
    document = Model(
        name="tiny",
        architecture=Architecture(name="cnn", parameters=sum(p.numel() for p in network.parameters())),
        input=SPEC,
        classes=classes,
        threat=ThreatModel(norm="linf", epsilon="8/255", unit="input units [0, 1]"),
        recipe={},
        seed=seed,
        threads=1,
        device="cpu",
        best_epoch=0,
        clean=Count(k=0, n=0),
        robust=Count(k=0, n=0),
    )
    model = save(folder / "model", document, {"weights.safetensors": tensors(network.state_dict())})
    decision = GateDecision(
        inputs={"model": judged or model.digest},
        name="tiny",
        policy="0" * 64,
        policy_name="default",
        alpha=0.05,
        checks=(Check(name="clean accuracy", required="at least 0", verdict=verdict),),
        verdict=verdict,
    )
    save(folder / "decision", decision)
    x = np.random.default_rng(0).random((100, *SPEC.shape), dtype=np.float32)
    np.savez(folder / "replay.npz", x=x, y=np.zeros(100, dtype=np.int64))
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), seed=0)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    return lambda **arguments: write_bundle(tmp_path / "made", **arguments)


@pytest.fixture
def spec() -> InputSpec:
    return SPEC


@pytest.fixture
def no_child_left() -> Callable[[], list[str]]:
    """The command lines of this process's living children."""

    def left() -> list[str]:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        lines = {pid: Path(f"/proc/{pid}/cmdline") for pid in listed}
        return [line.read_bytes().replace(b"\0", b" ").decode() for line in lines.values() if line.exists()]

    return left
