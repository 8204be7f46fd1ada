"""Bundles for live runs: a digits network trained for a moment, its decision, rows to send; and a registry of them.

`python -m tests.faults.live.bundles FOLDER` makes them in a process of its own, so that no other imports torch.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from holdfast.errors import RolloutError

NAME = "digits"
SECONDS = 300.0


@dataclass(frozen=True)
class Bundles:
    """Folders with model/, decision/ and replay.npz; champion and candidate differ in their digests."""

    champion: Path
    candidate: Path
    evil: Path
    """Weights of the same size that no gate has judged."""
    tracking: str
    """A registry in which version 1 is the champion and version 2 the candidate."""


def make(folder: Path) -> Bundles:
    """Makes them, or finds those that were made before.

    Raises:
        RolloutError: the process that makes them failed.
    """
    done = folder / "bundles.json"
    if not done.exists():
        command = [sys.executable, "-m", "tests.faults.live.bundles", str(folder)]
        made = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if made.returncode:
            raise RolloutError(f"bundles: expected exit code 0, found {made.returncode}: {made.stderr[-500:]}")
    found = json.loads(done.read_bytes())
    return Bundles(Path(found["champion"]), Path(found["candidate"]), Path(found["evil"]), found["tracking"])


def _main(folder: Path) -> None:
    from holdfast import registry
    from holdfast.artifacts.documents import GateDecision, Model
    from holdfast.artifacts.folder import load

    weights = _trained(seed=0)
    made = {}
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    for version, role in ((1, "champion"), (2, "candidate")):
        package = folder / f"package-{version}"
        bundle = made[role] = _bundle(package / "data" / "bundle", weights, version)
        (package / "MLmodel").write_text("flavors: {}\n")
        digest = load(bundle / "model", Model).digest
        tags = {
            "holdfast.verdict": "pass",
            "holdfast.model_digest": digest,
            "holdfast.decision_digest": load(bundle / "decision", GateDecision).digest,
            "holdfast.bundle_digest": registry.seal_bundle(bundle),
        }
        entry = registry.Entry(NAME, digest, tags, description=NAME, about=NAME)
        (folder / "reports").mkdir(exist_ok=True)
        registry.register(uri, entry, package=package, reports=folder / "reports")
    registry.promote(uri, NAME, 1)
    made["evil"] = _bundle(folder / "evil", _trained(seed=1, wrong=True), 3)
    found = {role: str(path) for role, path in made.items()} | {"tracking": uri}
    (folder / "bundles.json").write_text(json.dumps(found))


def _digits() -> "tuple[object, object]":
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images[:, None] / 16.0).astype("float32"), digits.target.astype("int64")


def _trained(seed: int, wrong: bool = False) -> Mapping[str, object]:
    """A CNN after a few epochs on the bundled digits; `wrong`: taught to say the next class."""
    import torch

    from holdfast.artifacts.documents import InputSpec
    from holdfast.model.networks import build
    from holdfast.workload.schema import NetworkConfig

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    images, labels = _digits()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    y = (y + 1) % 10 if wrong else y
    spec = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")
    network = build(NetworkConfig(architecture="cnn"), spec, 10, seed=seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(4):
        for rows in torch.randperm(len(x)).split(64):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return dict(network.state_dict())


def _bundle(folder: Path, weights: Mapping[str, object], version: int) -> Path:
    import numpy as np
    from safetensors.torch import save as tensors

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
    from holdfast.artifacts.policies import shipped_digests

    document = Model(
        name=NAME,
        architecture=Architecture(name="cnn", parameters=sum(value.numel() for value in weights.values())),  # type: ignore[attr-defined]
        input=InputSpec(modality="image", shape=(1, 8, 8), dtype="float32"),
        classes=tuple("0123456789"),
        threat=ThreatModel(norm="linf", epsilon=Fraction(1, 10), unit="input units [0, 1]"),
        recipe={},
        seed=0,
        threads=1,
        device="cpu",
        best_epoch=version,
        clean=Count(k=0, n=0),
        robust=Count(k=0, n=0),
    )
    model = save(folder / "model", document, {"weights.safetensors": tensors(weights)})
    decision = GateDecision(
        inputs={"model": model.digest},
        name=NAME,
        policy=next(iter(shipped_digests())),
        policy_name="default",
        alpha=0.05,
        checks=(Check(name="for the benchmark only", required="nothing", verdict=Verdict.PASS),),
        verdict=Verdict.PASS,
    )
    save(folder / "decision", decision)
    images, labels = _digits()
    np.savez(folder / "replay.npz", x=images[:500], y=labels[:500])  # type: ignore[index]
    return folder


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
