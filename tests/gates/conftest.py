"""Small evidence that passes the default policy; each test spoils one part of it."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from holdfast.artifacts.documents import (
    Architecture,
    AttackResult,
    BackdoorReport,
    Certificate,
    CertifiedAt,
    ChampionComparison,
    ClassPaired,
    ClassResult,
    Count,
    DriftReport,
    InputSpec,
    MaskingCheck,
    Model,
    Paired,
    Performance,
    RobustnessReport,
    ScanReport,
    SchemaReport,
    Snapshot,
    ThreatModel,
    TriggerResult,
    Verdict,
)
from holdfast.workload.schema import AttackConfig, BackdoorConfig, CertifyConfig, DriftConfig, ScanConfig
from holdfast_gates.decide import Evidence, Judged
from holdfast_gates.policy import Policy, find

MODEL, SNAPSHOT, SCAN, BASELINE = "a" * 64, "b" * 64, "c" * 64, "d" * 64
ABOUT = {"model": MODEL, "snapshot": SNAPSHOT}
THREAT = ThreatModel(norm="linf", epsilon=Fraction(1, 10), unit="input units [0, 1]")


def model(**changes: object) -> Model:
    document = Model(
        inputs={"snapshot": SNAPSHOT, "scan": SCAN},
        name="digits",
        architecture=Architecture(name="cnn", parameters=1),
        input=InputSpec(modality="image", shape=(1, 8, 8), dtype="float32"),
        classes=("0", "1"),
        threat=THREAT,
        recipe={},
        seed=0,
        threads=1,
        device="cpu",
        best_epoch=1,
        clean=Count(k=98, n=100),
        robust=Count(k=80, n=100),
    )
    return document.model_copy(update=changes)


def snapshot(**changes: object) -> Snapshot:
    document = Snapshot(
        name="digits", modality="image", root="e" * 64, sources=(), label="label", classes=("0", "1"),
        train_rows=4000, test_rows=1000, train_per_class=(2000, 2000), test_per_class=(500, 500), shape=(1, 8, 8),
        leaked_rows=0,
    )  # fmt: skip
    return document.model_copy(update=changes)


def performance(*hits: int, rows: tuple[int, ...] = (500, 500)) -> Performance:
    """Of two classes: `hits` of their `rows` are right, all others are answered with the other class."""
    misses = [n - k for k, n in zip(hits, rows, strict=True)]
    answered = [hits[0] + misses[1], hits[1] + misses[0]]
    return Performance(
        classes=tuple(
            ClassResult(name=name, recall=Count(k=k, n=n), answers=m, precision=Count(k=k, n=m))
            for name, k, n, m in zip(("0", "1"), hits, rows, answered, strict=True)
        ),
        best_constant=Count(k=max(rows), n=sum(rows)),
    )


def robustness(**changes: object) -> RobustnessReport:
    document = RobustnessReport(
        configuration=AttackConfig().configuration,
        inputs={**ABOUT, "baseline": BASELINE},
        tier="pr",
        seed=0,
        clean=Count(k=970, n=1000),
        attacks=(
            AttackResult(name="pgd", library="x", threat=THREAT, steps=9, restarts=1, survived=Count(k=800, n=1000)),
        ),
        worst_case=Count(k=790, n=1000),
        masking=(MaskingCheck(name="more steps", verdict=Verdict.PASS, detail="accuracy does not rise"),),
        champion_clean=Paired(both=960, only_candidate=10, only_champion=10, neither=20),
        champion_worst_case=Paired(both=770, only_candidate=20, only_champion=20, neither=190),
        clean_performance=performance(485, 485),
        worst_case_performance=performance(395, 395),
        champion_classes=tuple(
            ClassPaired(
                name=name,
                clean=Paired(both=480, only_candidate=5, only_champion=5, neither=10),
                worst_case=Paired(both=385, only_candidate=10, only_champion=10, neither=95),
            )
            for name in ("0", "1")
        ),
        champion=ChampionComparison(model_version=3),
    )
    return document.model_copy(update=changes)


def scan(**changes: object) -> ScanReport:
    document = ScanReport(
        configuration=ScanConfig().configuration,
        inputs={"snapshot": SNAPSHOT},
        detectors=(),
        suspects=Count(k=2, n=1000),
        budget=75,
        quarantined=(3, 5),
        per_class=(1, 1),
        clean_rows="e" * 64,
        verdict=Verdict.PASS,
    )
    return document.model_copy(update=changes)


def certificate(**changes: object) -> Certificate:
    document = Certificate(
        configuration=CertifyConfig().configuration,
        inputs=ABOUT,
        method="randomized-smoothing",
        norm="l2",
        unit="input units [0, 1]",
        noise=0.25,
        alpha=0.001,
        samples=1000,
        selection_samples=100,
        seed=0,
        certified=(
            CertifiedAt(radius=0.0, certified=Count(k=180, n=200)),
            CertifiedAt(
                radius=0.25,
                certified=Count(k=120, n=200),
                classes={"0": Count(k=60, n=100), "1": Count(k=60, n=100)},
            ),
        ),
        abstained=Count(k=4, n=200),
    )
    return document.model_copy(update=changes)


def backdoor(**changes: object) -> BackdoorReport:
    trigger = TriggerResult(target="0", size=9.0, anomaly_index=0.5, success=Count(k=90, n=100), flagged=False)
    document = BackdoorReport(
        configuration=BackdoorConfig().configuration,
        inputs=ABOUT,
        method="m",
        triggers=(trigger,),
        flagged=(),
        verdict=Verdict.PASS,
    )
    return document.model_copy(update=changes)


def schema(**changes: object) -> SchemaReport:
    document = SchemaReport(
        inputs={"snapshot": SNAPSHOT}, source="inferred", columns=4, rows=1000, verdict=Verdict.PASS
    )
    return document.model_copy(update=changes)


def drift(**changes: object) -> DriftReport:
    document = DriftReport(
        configuration=DriftConfig().configuration,
        inputs={"snapshot": SNAPSHOT},
        reference="champion",
        stage_one=(),
        drifted=Count(k=0, n=4),
        reason="no column moved",
        verdict=Verdict.PASS,
    )
    return document.model_copy(update=changes)


MAKERS: dict[str, Callable[..., Any]] = {
    "schema": schema,
    "drift": drift,
    "scan": scan,
    "backdoor": backdoor,
    "attack": robustness,
    "certify": certificate,
}


@pytest.fixture
def policy() -> Policy:
    return find("default")


@pytest.fixture
def judged() -> Judged:
    return Judged(model(), MODEL, snapshot(), SNAPSHOT)


@pytest.fixture
def evidence() -> dict[str, Evidence]:
    digests: dict[str, str] = {"scan": SCAN}
    return {role: Evidence(make(), digests.get(role, "f" * 64)) for role, make in MAKERS.items()}


@pytest.fixture
def make() -> dict[str, Callable[..., object]]:
    return MAKERS
