"""Real small models that passed the gate, and a SQLite MLflow; shared by register and baseline."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdfast import registry
from holdfast.artifacts import policies
from holdfast.artifacts.documents import (
    Architecture,
    AttackResult,
    Certificate,
    CertifiedAt,
    ClassResult,
    Column,
    Count,
    Errors,
    Model,
    OperatingPoint,
    OperatingResult,
    Performance,
    Requirements,
    RobustnessReport,
    ScanReport,
    SchemaReport,
    Snapshot,
    SourceFile,
    ThreatModel,
    Verdict,
)
from holdfast.artifacts.folder import Artifact, Ref, save, seal, write_artifact
from holdfast.model.inputs import read_spec
from holdfast.workload.schema import NetworkConfig
from holdfast_gates.policy import AtLeast, Checks, Policy
from holdfast_gates.step import gate

NETWORKS = {"image": "cnn", "tabular": "mlp", "text": "text"}
CLASSES = ("ham", "spam")
ASKED = {Verdict.PASS: 0.5, Verdict.INCONCLUSIVE: 0.9, Verdict.FAIL: 0.999}
"""Clean accuracy that a policy asks of 18 of 20, for each verdict."""


@dataclass(frozen=True)
class Chain:
    """A model with the decision about it and everything the decision read."""

    model: Ref
    decision: Ref
    snapshot: Ref
    evidence: Mapping[str, Ref]


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory) -> Path:
    """A migrated, empty database: making one takes seconds, copying it none."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    registry.set_up(f"sqlite:///{path}")
    return path


@pytest.fixture
def tracking(empty_mlflow, tmp_path) -> str:
    shutil.copyfile(empty_mlflow, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def toys_that_count(monkeypatch):
    """The policies that judged a toy, as if they shipped."""
    toys: dict[str, str] = {}
    shipped = policies.shipped_digests()
    monkeypatch.setattr(policies, "shipped_digests", lambda: shipped | toys)
    return toys


def toy_policy(verdict: Verdict, require: Requirements | None = None) -> Policy:
    """A policy that asks one thing, by which a toy has this verdict."""
    checks = Checks(clean_accuracy=AtLeast(at_least=ASKED[verdict]))
    return Policy(name="default", alpha=0.05, checks=checks, require=require or Requirements())


@pytest.fixture
def chain(tmp_path, toys_that_count) -> Callable[..., Chain]:
    """Makes a chain for a modality; another seed gives another model on the same data."""

    def make(
        modality: str = "image",
        *,
        seed: int = 0,
        verdict: Verdict = Verdict.PASS,
        point: OperatingPoint | None = None,
        require: Requirements | None = None,
    ) -> Chain:
        folder = tmp_path / f"{modality}-{seed}-{verdict}"
        snapshot = _snapshot(folder / "snapshot", modality)
        schema = save(
            folder / "schema",
            SchemaReport(
                inputs={"snapshot": snapshot.digest}, source="inferred", columns=1, rows=40, verdict=Verdict.PASS
            ),
            {"schema.pbtxt": b"feature {}\n"},
        )
        scan = _scan(folder / "scan", snapshot)
        model = _model(folder / "model", snapshot, scan, seed, point)
        about = {"model": model.digest, "snapshot": snapshot.digest}
        attack = _attack(folder / "attack", about, kept=modality == "image", point=point)
        certify = _certify(folder / "certify", about)
        evidence = {"schema": schema, "scan": scan, "attack": attack, "certify": certify}
        refs = {role: _ref(artifact) for role, artifact in evidence.items()}
        policy = toy_policy(verdict, require)
        toys_that_count[policy.digest] = policy.name
        decision = gate(policy, folder / "gate", model=_ref(model), snapshot=_ref(snapshot), evidence=refs)
        assert decision.document.verdict is verdict
        return Chain(_ref(model), _ref(decision), _ref(snapshot), refs)

    return make


def _ref(artifact: Artifact) -> Ref:
    return Ref(artifact.folder, artifact.digest)


def _snapshot(out: Path, modality: str) -> Artifact[Snapshot]:
    rng = np.random.default_rng(0)
    columns, shape = {
        "image": ((), (1, 8, 8)),
        "tabular": ((Column(name="age", kind="number", integer=True), Column(name="fee", kind="number")), (2,)),
        "text": ((Column(name="message", kind="text"),), (24,)),
    }[modality]
    document = Snapshot(
        name=f"demo-{modality}",
        modality=modality,
        root="1" * 64,
        sources=(SourceFile(path="x", sha256="2" * 64, bytes=1),),
        label="label",
        classes=CLASSES,
        train_rows=40,
        test_rows=20,
        train_per_class=(20, 20),
        test_per_class=(10, 10),
        columns=columns,
        shape=shape,
        upper=16.0,
    )
    with write_artifact(out) as work:
        for split, rows in (("train", 40), ("test", 20)):
            y = np.arange(rows, dtype=np.int64) % 2
            if modality == "image":
                np.savez(work / f"{split}.npz", x=rng.integers(0, 17, (rows, 1, 8, 8)).astype(np.float64), y=y)
            else:
                _table(modality, y, rng).to_parquet(work / f"{split}.parquet", index=False)
        sealed = seal(work, document)
    return Artifact(out, sealed.document, sealed.digest)


def _table(modality: str, y: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    label = np.asarray(CLASSES, dtype=object)[y]
    if modality == "text":
        return pd.DataFrame({"message": [f"call me {i} {'WIN' * v}" for i, v in enumerate(y)], "label": label})
    return pd.DataFrame(
        {"age": rng.integers(18, 80, len(y)).astype(float), "fee": rng.normal(10 + y, 1, len(y)), "label": label}
    )


def _model(
    out: Path, snapshot: Artifact[Snapshot], scan: Artifact[ScanReport], seed: int, point: OperatingPoint | None
) -> Artifact[Model]:
    from safetensors.torch import save as to_bytes

    from holdfast.model.networks import build, parameters
    from holdfast.model.operating import with_threshold

    spec, modality = read_spec(snapshot), snapshot.document.modality
    net = build(NetworkConfig(architecture=NETWORKS[modality]), spec, 2, seed)
    if point is not None:
        net = with_threshold(net, CLASSES.index(point.positive), point.threshold)
    document = Model(
        inputs={"snapshot": snapshot.digest, "scan": scan.digest},
        name=f"demo-{modality}",
        architecture=Architecture(name=NETWORKS[modality], parameters=parameters(net)),
        input=spec,
        classes=CLASSES,
        threat=ThreatModel(norm="linf", epsilon=Fraction(1, 10), unit="input units [0, 1]"),
        recipe={"recipe": "pgd", "epochs": 2},
        seed=seed,
        threads=1,
        device="cpu",
        best_epoch=1,
        clean=Count(k=18, n=20),
        robust=Count(k=15, n=20),
        operating_point=point,
    )
    curve = b'[{"epoch": 0, "loss": 0.7}, {"epoch": 1, "loss": 0.5}]'
    return save(out, document, {"weights.safetensors": to_bytes(net.state_dict()), "curve.json": curve})


def _scan(out: Path, snapshot: Artifact[Snapshot]) -> Artifact[ScanReport]:
    return save(
        out,
        ScanReport(
            inputs={"snapshot": snapshot.digest},
            detectors=(),
            suspects=Count(k=2, n=40),
            budget=3,
            quarantined=(3, 5),
            per_class=(0, 2),
            clean_rows="5" * 64,
            verdict=Verdict.PASS,
        ),
    )


def _attack(
    out: Path, about: dict[str, str], *, kept: bool, point: OperatingPoint | None
) -> Artifact[RobustnessReport]:
    threat = ThreatModel(norm="linf", epsilon=Fraction(1, 10), unit="input units [0, 1]")
    pgd = AttackResult(
        name="pgd", library="holdfast 0.1.0", threat=threat, steps=9, restarts=1, survived=Count(k=16, n=20)
    )
    second = pgd.model_copy(update={"library": "adversarial-robustness-toolbox 1.20.1"})
    return save(
        out,
        RobustnessReport(
            inputs=about,
            tier="pr",
            seed=0,
            clean=Count(k=18, n=20),
            attacks=(pgd, second),
            worst_case=Count(k=15, n=20),
            masking=(),
            clean_performance=_performance((16, 17), (2, 3), roc=0.9),
            worst_case_performance=_performance((15, 17), (0, 3), roc=0.6),
            operating_point=None if point is None else _operating(point),
        ),
        {"curve.html": b"<p>accuracy</p>", **({"attacks.npz": b"adversarial rows"} if kept else {})},
    )


def _operating(point: OperatingPoint) -> OperatingResult:
    """A tenth of the rows is positive; 1 of 4 is missed, under attack 3 of 4; a tenth of the others is an alarm."""
    few, most, alarms = Count(k=1, n=4), Count(k=3, n=4), Count(k=2, n=20)
    return OperatingResult(
        point=point,
        other="ham",
        positives=Count(k=2, n=20),
        clean=Errors(misses=few, false_alarms=alarms),
        worst_case=Errors(misses=most, false_alarms=alarms),
        without_threshold=Errors(misses=most, false_alarms=few),
    )


def _performance(ok: tuple[int, int], odd: tuple[int, int], *, roc: float) -> Performance:
    """Of two classes; the second has a name that MLflow would not take as a metric's."""
    answers = ok[0] + odd[1] - odd[0], odd[0] + ok[1] - ok[0]
    return Performance(
        classes=tuple(
            ClassResult(name=name, recall=Count(k=k, n=n), answers=m, precision=Count(k=k, n=m))
            for name, (k, n), m in zip(("ok", "odd/no=é"), (ok, odd), answers, strict=True)
        ),
        best_constant=Count(k=17, n=20),
        positive="odd/no=é",
        roc_auc=roc,
        pr_auc=roc / 2,
    )


def _certify(out: Path, about: dict[str, str]) -> Artifact[Certificate]:
    return save(
        out,
        Certificate(
            inputs=about,
            method="randomized-smoothing",
            norm="l2",
            unit="input units [0, 1]",
            noise=0.25,
            alpha=0.001,
            samples=100,
            selection_samples=10,
            seed=0,
            certified=(CertifiedAt(radius=0.25, certified=Count(k=12, n=20)),),
            abstained=Count(k=1, n=20),
        ),
    )
