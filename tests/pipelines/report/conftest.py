"""Small real runs: the very documents that the steps write, sealed by the very code that seals them."""

import io
import json
import math
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import (
    Anomaly,
    Architecture,
    AttackResult,
    BackdoorReport,
    Baseline,
    Certificate,
    CertifiedAt,
    Check,
    ClassResult,
    ColumnDrift,
    ConfidenceDrift,
    Count,
    CountedWaiver,
    Detector,
    Document,
    DriftReport,
    EpsilonPoint,
    ExtractionCurve,
    ExtractionLeftOut,
    ExtractionPoint,
    ExtractionReport,
    GateDecision,
    GuardCalibration,
    GuardStream,
    InputSpec,
    MaskingCheck,
    Model,
    Paired,
    Performance,
    Registration,
    Requirements,
    RobustnessReport,
    RolloutRecord,
    ScanReport,
    SchemaReport,
    Snapshot,
    SourceFile,
    ThreatModel,
    Transition,
    TriggerResult,
    Verdict,
    worst,
)
from holdfast.artifacts.folder import Artifact, save
from holdfast.artifacts.inspect import verdict_of

DIGEST = "ab" * 32
CLASSES = tuple(str(digit) for digit in range(10))
THREAT = ThreatModel(norm="linf", epsilon=Fraction("8/255"), unit="input units [0, 1]")


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@dataclass
class RunMaker:
    """Writes the artifacts of a run one by one, then its record."""

    folder: Path
    workload: str = "digits"
    steps: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    def add(self, step: str, document: Document, files: dict[str, bytes] | None = None, seconds: float = 1.2) -> Any:
        place = f"steps/{step}"
        sealed: Artifact[Any] = save(self.folder / place, document, files)
        verdict = verdict_of(document)
        record = {"step": step, "folder": place, "digest": sealed.digest, "verdict": verdict, "seconds": seconds}
        self.steps.append({**record, "reused": step == "baseline"})
        self.digests[step] = sealed.digest
        return sealed

    def made_from(self, *steps: str) -> dict[str, str]:
        return {step: self.digests[step] for step in steps if step in self.digests}

    def finish(self, outcome: str, **more: Any) -> Path:
        record = {"workload": self.workload, "seed": 0, "outcome": outcome, "stopped_at": None, "model_version": None}
        (self.folder / "run.json").write_text(json.dumps({**record, **more, "steps": self.steps}))
        return self.folder

    # --- the steps -----------------------------------------------------------------------------------------------

    def snapshot(self, **more: Any) -> None:
        told = {
            "name": self.workload,
            "modality": "image",
            "root": DIGEST,
            "sources": (SourceFile(path="digits.csv.gz", sha256=DIGEST, bytes=57523),),
            "label": "label",
            "classes": CLASSES,
            "train_rows": 1437,
            "test_rows": 360,
            "train_per_class": (142, 146, 142, 146, 145, 145, 145, 143, 139, 144),
            "test_per_class": (36, 36, 35, 37, 36, 37, 36, 36, 35, 36),
            "shape": (1, 8, 8),
            "upper": 16.0,
        }
        self.add("snapshot", Snapshot(**{**told, **more}))
        self.add("baseline", Baseline(name=self.workload, present=False), seconds=0.4)

    def schema(self, *anomalies: Anomaly) -> None:
        verdict = Verdict.FAIL if anomalies else Verdict.PASS
        told = SchemaReport(
            inputs=self.made_from("snapshot"),
            source="champion",
            columns=65,
            rows=1437,
            anomalies=anomalies,
            verdict=verdict,
        )
        self.add("schema", told, seconds=3.8)

    def drift(self, *, broken: bool = False, names: tuple[str, ...] = ()) -> None:
        generator = np.random.default_rng(0)
        names = names or tuple(f"pixel_{row}_{column}" for row in range(3) for column in range(8))
        effects = np.abs(generator.normal(1.1 if broken else 0.05, 0.5 if broken else 0.04, len(names)))
        columns = tuple(_column(name, float(effect)) for name, effect in zip(names, effects, strict=True))
        drifted = sum(column.drifted for column in columns)
        stage = ConfidenceDrift(
            test="Kolmogorov-Smirnov",
            statistic=0.031,
            threshold=0.062,
            reference_mean=0.912,
            current_mean=0.907,
            drifted=False,
        )
        told = DriftReport(
            inputs=self.made_from("snapshot", "baseline"),
            reference="champion",
            stage_one=columns,
            drifted=Count(k=drifted, n=len(columns)),
            stage_two=stage,
            reason=f"{drifted} of {len(columns)} columns drifted",
            verdict=Verdict.FAIL if broken else Verdict.PASS,
        )
        files = {"evidently.html": b"<html></html>", "distributions.json": _distributions(columns, generator)}
        self.add("drift", told, files, seconds=5.1)

    def scan(self, quarantined: int = 0) -> None:
        generator = np.random.default_rng(1)
        rows = np.sort(generator.choice(1437, quarantined, replace=False))
        alarm = quarantined > 20
        told = ScanReport(
            inputs=self.made_from("snapshot"),
            detectors=(
                Detector(name="spectral signatures", statistic=9.31 if alarm else 2.02, threshold=4.0, alarm=alarm),
                Detector(name="confident learning", statistic=0.011, threshold=0.05, alarm=False, detail="per class"),
            ),
            suspects=Count(k=quarantined, n=1437),
            budget=107,
            quarantined=tuple(int(row) for row in rows),
            per_class=(quarantined, *([0] * 9)),
            clean_rows=DIGEST,
            verdict=Verdict.PASS,
        )
        held = npz(x=_digits(quarantined, generator), y=np.zeros(quarantined, np.int64), row=rows)
        scores = npz(score=generator.uniform(0, 1, 1437))
        self.add("scan", told, {"quarantine.npz": held, "scores.npz": scores}, seconds=14.2)

    def scan_rows(self, parquet: bytes) -> None:
        told = ScanReport(
            inputs=self.made_from("snapshot"),
            detectors=(),
            suspects=Count(k=1, n=1437),
            budget=107,
            quarantined=(3,),
            per_class=(1, 0),
            clean_rows=DIGEST,
            verdict=Verdict.PASS,
        )
        self.add("scan", told, {"quarantine.parquet": parquet})

    def train(self) -> None:
        curve = [
            {"epoch": e, "loss": 2.3 / e, "clean": 280 - 200 // e, "robust": 225 - 180 // e, "rows": 287}
            for e in range(1, 21)
        ]
        told = Model(
            inputs=self.made_from("snapshot", "scan"),
            name=self.workload,
            architecture=Architecture(name="cnn", arguments={"width": 16}, parameters=28_746),
            input=InputSpec(modality="image", shape=(1, 8, 8), dtype="float32"),
            classes=CLASSES,
            threat=THREAT,
            recipe={"recipe": "pgd", "epochs": 20, "attack_steps": 7},
            seed=0,
            threads=1,
            device="cpu",
            best_epoch=17,
            clean=Count(k=349, n=360),
            robust=Count(k=221, n=287),
        )
        files = {"weights.safetensors": b"weights", "curve.json": json.dumps(curve).encode()}
        self.add("train", told, files, seconds=31.9)

    def evidence(self, *, flagged: bool = False) -> None:
        generator = np.random.default_rng(2)
        inputs = self.made_from("train", "snapshot")
        triggers = tuple(_trigger(name, flagged=flagged and name == "0") for name in CLASSES)
        told = BackdoorReport(
            inputs=inputs,
            method="neural cleanse",
            triggers=triggers,
            flagged=("0",) if flagged else (),
            verdict=Verdict.FAIL if flagged else Verdict.PASS,
        )
        mask = (generator.random((10, 8, 8)) > 0.8).astype(np.float32)
        self.add(
            "backdoor", told, {"triggers.npz": npz(mask=mask, pattern=generator.random((10, 1, 8, 8)))}, seconds=9.7
        )
        self.add("attack", _robustness(inputs), seconds=16.3)
        self.add("certify", _certificate(inputs), seconds=11.0)

    def gate(self, *, refused: bool = False, waived: bool = False) -> None:
        checks = _checks(refused or waived)
        failed = [check.name for check in checks if check.verdict is Verdict.FAIL]
        ended = {"until": "2026-12-31T00:00:00Z", "statement": DIGEST}
        accepted = [CountedWaiver(check=name, owner="Ana", reason="ships <now>", **ended) for name in failed]
        inputs = self.made_from("train", "schema", "drift", "scan", "backdoor", "attack", "certify")
        told = GateDecision(
            inputs=inputs,
            name=self.workload,
            policy=DIGEST,
            policy_name="default",
            alpha=0.05,
            checks=checks,
            waivers=tuple(accepted) if waived else (),
            waivers_not_counted=("the waiver of drift by Ben: it ended",) if waived else (),
            require=Requirements(attested=waived, waivers_at_most=len(failed) if waived else 0),
            verdict=Verdict.PASS if waived else worst(check.verdict for check in checks),
        )
        self.add("gate", told, seconds=0.3)

    def register(self, version: int = 1) -> None:
        told = Registration(
            inputs=self.made_from("train", "gate"),
            name=self.workload,
            model_version=version,
            model=DIGEST,
            run_id="0123456789abcdef",
        )
        self.add("register", told, seconds=2.6)

    def rollout(self, *, rolled_back: bool = False) -> None:
        told = _record(rolled_back)
        rows = _timeline(rolled_back)
        incident = {"incident.html": b"<p>incident</p>"} if rolled_back else {}
        self.add("rollout", told, {"timeline.json": json.dumps(rows).encode(), **incident}, seconds=rows[-1]["t"])

    def guarded(self) -> None:
        """What is made where someone asks for it."""
        made_from = self.made_from("train", "snapshot")
        guard = GuardCalibration(
            inputs=made_from, name="digits", features="penultimate", reference_rows=9, held_out_rows=9, near_rows=9,
            alpha=1e-4, confidence=0.99, least_p=0.005, seed=0, benign=Count(k=0, n=20),
            streams=(GuardStream(name="noise", queries=300, alarm_at=21), GuardStream(name="shuffled", queries=300)),
        )  # fmt: skip
        self.add("calibrate", guard)
        points = [ExtractionPoint(queries=q, agreed=Count(k=k, n=180)) for q, k in ((100, 61), (300, 122))]
        curves = [ExtractionCurve(strategy="random", outputs=form, points=points) for form in ("label", "full")]
        gone = ExtractionLeftOut(strategy="in-distribution", queries=300, reason="the attacker has 180 rows")
        report = ExtractionReport(
            inputs=made_from, name="digits", curves=curves, left_out=(gone,), agreement_at_most=0.8, alpha=0.05,
            budget=300, budget_reason="random (full): not above 0.8 up to 300 queries; more were not measured", seed=0,
        )  # fmt: skip
        self.add("extract", report)

    def complete(self, *, quarantined: int = 6, rolled_back: bool = False) -> Path:
        self.snapshot()
        self.schema()
        self.drift()
        self.scan(quarantined)
        self.train()
        self.evidence()
        self.gate()
        self.register()
        self.rollout(rolled_back=rolled_back)
        return self.finish("rolled-back" if rolled_back else "promoted", model_version=1)


def _column(name: str, effect: float) -> ColumnDrift:
    return ColumnDrift(
        column=name,
        test="Kolmogorov-Smirnov p",
        statistic=math.exp(-12 * effect),
        threshold=0.000154,
        effect=effect,
        drifted=effect > 0.5,
    )


def _distributions(columns: tuple[ColumnDrift, ...], generator: np.random.Generator) -> bytes:
    edges = np.linspace(0, 16, 17)
    told: dict[str, Any] = {}
    for column in columns:
        before = np.clip(generator.normal(7, 3, 1437), 0, 16)
        after = np.clip(generator.normal(7 + 3 * column.effect, 3, 800), 0, 16)
        counts = [np.histogram(values, edges)[0].tolist() for values in (before, after)]
        told[column.column] = {"edges": edges.tolist(), "reference": counts[0], "current": counts[1]}
    told[columns[-1].column] = {"categories": ["debit", "credit"], "reference": [700, 737], "current": [500, 300]}
    return json.dumps({"columns": told}).encode()


def _digits(count: int, generator: np.random.Generator) -> Any:
    from sklearn.datasets import load_digits

    images = load_digits().images[generator.choice(1797, count)].reshape(count, 1, 8, 8).astype(np.float32)
    images[:, :, 6:, 6:] = 16.0
    return images


def _trigger(name: str, *, flagged: bool) -> TriggerResult:
    size = 2.1 if flagged else 11.0 + int(name) / 3
    index = 4.2 if flagged else 0.4
    return TriggerResult(
        target=name, size=size, anomaly_index=index, success=Count(k=318 if flagged else 290, n=324), flagged=flagged
    )


def _performance(*hits: int) -> Performance:
    """Of ten classes with 36 examples each; all misses are answered with class 0."""
    answers = [360 - sum(hits[1:]), *hits[1:]]
    return Performance(
        classes=tuple(
            ClassResult(name=str(label), recall=Count(k=k, n=36), answers=n, precision=Count(k=k, n=n))
            for label, (k, n) in enumerate(zip(hits, answers, strict=True))
        ),
        best_constant=Count(k=36, n=360),
    )


def _robustness(inputs: dict[str, str]) -> RobustnessReport:
    survived = {"FGSM": 301, "PGD": 283, "Square": 290, "ART PGD": 284}
    attacks = tuple(
        AttackResult(name=name, library="holdfast", threat=THREAT, steps=40, restarts=3, survived=Count(k=k, n=360))
        for name, k in survived.items()
    )
    curve = {"0": 349, "4/255": 321, "8/255": 283, "12/255": 231, "16/255": 160}
    return RobustnessReport(
        inputs=inputs,
        tier="pr",
        seed=0,
        clean=Count(k=349, n=360),
        attacks=attacks,
        worst_case=Count(k=281, n=360),
        curve=tuple(EpsilonPoint(epsilon=Fraction(e), survived=Count(k=k, n=360)) for e, k in curve.items()),
        masking=(MaskingCheck(name="black box beats white box", verdict=Verdict.PASS, detail="Square 290, PGD 283"),),
        champion_clean=Paired(both=340, only_candidate=9, only_champion=5, neither=6),
        champion_worst_case=Paired(both=255, only_candidate=26, only_champion=17, neither=62),
        clean_performance=_performance(36, 36, 36, 36, 36, 36, 36, 36, 36, 25),
        worst_case_performance=_performance(36, 31, 31, 31, 31, 31, 31, 31, 21, 7),
    )


def _certificate(inputs: dict[str, str]) -> Certificate:
    certified = {0.0: 176, 0.1: 168, 0.25: 141, 0.5: 77}
    return Certificate(
        inputs=inputs,
        method="randomized-smoothing",
        norm="l2",
        unit="input units [0, 1]",
        noise=0.25,
        alpha=0.001,
        samples=1000,
        selection_samples=100,
        seed=0,
        certified=tuple(
            CertifiedAt(
                radius=r,
                certified=Count(k=k, n=200),
                classes={str(label): Count(k=k // 10, n=20) for label in range(10)},
            )
            for r, k in certified.items()
        ),
        abstained=Count(k=9, n=200),
    )


def _checks(refused: bool) -> tuple[Check, ...]:
    fail = Verdict.FAIL if refused else Verdict.PASS
    return (
        Check(
            name="schema_anomalies",
            measured=0.0,
            required="verdict pass",
            verdict=Verdict.PASS,
            reason="65 columns keep to the champion schema",
        ),
        Check(
            name="clean_accuracy",
            measured=349 / 360,
            count=Count(k=349, n=360),
            lower=0.9502,
            upper=0.9828,
            required="at least 0.900",
            champion=0.9583,
            verdict=Verdict.PASS,
        ),
        Check(
            name="robust_accuracy",
            measured=281 / 360,
            count=Count(k=281, n=360),
            lower=0.7419,
            upper=0.8155,
            required="at least 0.600",
            champion=0.7556,
            verdict=Verdict.PASS,
        ),
        Check(
            name="champion_robust",
            measured=0.025,
            lower=-0.0052,
            upper=0.0561,
            required="at least -0.030 against the champion",
            champion=0.7556,
            verdict=Verdict.PASS,
            reason="26 only the candidate, 17 only the champion",
        ),
        Check(
            name="backdoor",
            measured=1.0 if refused else 0.0,
            required="no flagged class; verdict pass",
            verdict=fail,
            reason="0: size 2.1, anomaly index 4.20" if refused else "10 classes inverted",
        ),
    )


def _record(rolled_back: bool) -> RolloutRecord:
    reason = "slow answers: e-value 871 reached 60" if rolled_back else "all steps passed"
    last = ("Canary 25 %", "RolledBack", 0) if rolled_back else ("Canary 100 %", "Promoted", 100)
    transitions = (
        Transition(
            state_before="Pending",
            state_after="Shadow",
            weight=0,
            reason="started",
            candidate=Count(k=0, n=0),
            champion=Count(k=0, n=0),
        ),
        Transition(
            state_before="Shadow",
            state_after="Canary 5 %",
            weight=5,
            reason="200 mirrored",
            candidate=Count(k=0, n=200),
            champion=Count(k=0, n=204),
        ),
        Transition(
            state_before=last[0],
            state_after=last[1],
            weight=last[2],
            reason=reason,
            candidate=Count(k=37 if rolled_back else 0, n=412),
            champion=Count(k=1, n=1633),
            evidence={"e_slow": 871.0 if rolled_back else 0.42},
        ),
    )
    return RolloutRecord(
        name="digits",
        candidate_version=3,
        champion_version=2,
        transitions=transitions,
        requests_sent=2046,
        requests_failed=0,
        outcome="rolled-back" if rolled_back else "promoted",
        reason=reason,
        cause=Cause.MODEL if rolled_back else Cause.NONE,
        verdict=Verdict.FAIL if rolled_back else Verdict.PASS,
    )


def _timeline(rolled_back: bool) -> list[dict[str, Any]]:
    plan = [("Shadow", 0, 30), ("Canary 5 %", 5, 40), ("Canary 25 %", 25, 40)]
    plan += (
        [("RolledBack", 0, 8)]
        if rolled_back
        else [("Canary 50 %", 50, 30), ("Canary 100 %", 100, 30), ("Promoted", 100, 5)]
    )
    rows: list[dict[str, Any]] = []
    counts = {
        "sent": 0,
        "candidate_requests": 0,
        "candidate_errors": 0,
        "champion_requests": 0,
        "champion_errors": 0,
        "slow_candidate": 0,
        "slow_champion": 0,
    }
    evidence = 1.0
    for state, weight, ticks in plan:
        for _ in range(ticks):
            turned = rolled_back and state == "Canary 25 %"
            counts["sent"] += 20
            counts["candidate_requests"] += 20 if state == "Shadow" else weight * 20 // 100
            counts["champion_requests"] += 20 - weight * 20 // 100
            counts["slow_candidate"] += 2 if turned else 0
            counts["candidate_errors"] += 1 if turned and len(rows) % 3 == 0 else 0
            counts["champion_errors"] += len(rows) % 50 == 49
            evidence *= 1.19 if turned else 0.985
            rows.append(
                {
                    "t": len(rows) * 0.1,
                    "state": state,
                    "weight": weight,
                    "failed": 0,
                    **counts,
                    "disagreement": 0.02,
                    "e_errors": evidence**0.6,
                    "e_slow": evidence,
                    "e_disagreement": 0.9,
                    "e_drift": 0.7,
                    "e_attack": 1.0,
                }
            )
    return rows


@pytest.fixture
def maker(tmp_path: Path) -> Any:
    """Makes runs below `tmp_path`: `maker("clean")`."""

    def make(name: str) -> RunMaker:
        folder = tmp_path / name
        folder.mkdir()
        return RunMaker(folder)

    return make


@pytest.fixture
def story_runs(maker: Any) -> dict[str, Path]:
    """The runs of the demo's acts."""
    broken = maker("broken")
    broken.snapshot()
    broken.schema(
        Anomaly(column="pixel_0_0", kind="FLOAT_TYPE_BIG_FLOAT", detail="values up to 255, expected at most 16")
    )
    broken.drift(broken=True)
    return {
        "clean": maker("clean").complete(),
        "poisoned": maker("poisoned").complete(quarantined=64),
        "broken": broken.finish("stopped", stopped_at="schema"),
        "regressed": maker("regressed").complete(rolled_back=True),
    }
