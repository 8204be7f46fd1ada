"""Small real models: an untrained CNN for 8 x 8 pictures, saved as the train step saves it, with a decision on it."""

import json
import os
import shutil
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
    OperatingPoint,
    ThreatModel,
    Verdict,
)
from holdfast.artifacts.folder import load, save
from holdfast.artifacts.policies import shipped_digests

POLICY = {"name": "default", "rollout": {"approval_seconds": 1800.0, "clients": 4}}
"""What the gate judged by, as far as a rollout reads it."""
SPEC = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")
CLASSES = tuple("0123456789")


def write_bundle(
    folder: Path,
    *,
    seed: int,
    verdict: Verdict = Verdict.PASS,
    judged: str | None = None,
    classes: tuple[str, ...] = CLASSES,
    best_epoch: int = 0,
    policy: dict[str, object] | None = None,
    point: OperatingPoint | None = None,
) -> Path:
    """A bundle as the registry gives it: model/, decision/, replay.npz."""
    from safetensors.torch import save as tensors

    from holdfast.model.networks import build
    from holdfast.model.operating import with_threshold
    from holdfast.workload.schema import NetworkConfig

    network = build(NetworkConfig(architecture="cnn"), SPEC, len(classes), seed=seed)
    if point is not None:
        network = with_threshold(network, classes.index(point.positive), point.threshold)
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
        best_epoch=best_epoch,
        clean=Count(k=0, n=0),
        robust=Count(k=0, n=0),
        operating_point=point,
    )
    model = save(folder / "model", document, {"weights.safetensors": tensors(network.state_dict())})
    decision = GateDecision(
        inputs={"model": judged or model.digest},
        name="tiny",
        policy=next(iter(shipped_digests())),
        policy_name="default",
        alpha=0.05,
        checks=(Check(name="clean accuracy", required="at least 0", verdict=verdict),),
        verdict=verdict,
    )
    save(folder / "decision", decision, {} if policy is None else {"policy.json": json.dumps(policy).encode()})
    x = np.random.default_rng(0).random((100, *SPEC.shape), dtype=np.float32)
    np.savez(folder / "replay.npz", x=x, y=np.zeros(100, dtype=np.int64))
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), seed=0)


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry with three versions of one network under different digests; version 1 is the champion."""
    from holdfast import registry

    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    register_versions(uri, folder)
    registry.promote(uri, "tiny", 1)
    return uri


def register_versions(uri: str, folder: Path) -> None:
    """Registers three versions of one network under different digests; packages are made in `folder`."""
    from holdfast import registry

    (folder / "reports").mkdir()
    (folder / "reports" / "decision.md").write_text("passed")
    for version in (1, 2, 3):
        package = folder / f"package-{version}"
        made = write_bundle(package / "data" / "bundle", seed=0, best_epoch=version, policy=POLICY)
        (package / "MLmodel").write_text("flavors: {}\n")
        digest = load(made / "model", Model).digest
        tags = {
            "holdfast.verdict": "pass",
            "holdfast.model_digest": digest,
            "holdfast.decision_digest": load(made / "decision", GateDecision).digest,
            "holdfast.bundle_digest": registry.seal_bundle(made),
        }
        entry = registry.Entry("tiny", digest, tags, description="tiny", about="tiny")
        registry.register(uri, entry, package=package, reports=folder / "reports")


@pytest.fixture
def own_tracking(tracking: str, tmp_path: Path) -> str:
    """A registry of this test's own: version 1 is champion, 2 and 3 are the same network under other digests."""
    from holdfast import registry

    copy = shutil.copytree(tracking.removeprefix("sqlite:///").rpartition("/")[0], tmp_path / "registry")
    uri = f"sqlite:///{copy / 'mlflow.db'}"
    registry.promote(uri, "tiny", 1)
    return uri


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    return lambda **arguments: write_bundle(tmp_path / "made", **arguments)


@pytest.fixture
def spec() -> InputSpec:
    return SPEC


def living_children() -> dict[str, str]:
    """The command lines of this process's living children, by process id."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    lines = {pid: Path(f"/proc/{pid}/cmdline") for pid in listed}
    return {pid: line.read_bytes().replace(b"\0", b" ").decode() for pid, line in lines.items() if line.exists()}


@pytest.fixture
def no_child_left() -> Callable[[], list[str]]:
    """The command lines of the living children that the test itself started.

    A process that lives for the whole session (the API server of the cluster's tests) is older than the test.
    """
    older = living_children()
    return lambda: [line for pid, line in living_children().items() if pid not in older]
