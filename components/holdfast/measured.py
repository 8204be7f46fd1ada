"""What a document measured, as numbers with names, and what else of an artifact people look at; pure but for its files.

One list for MLflow and for Kubeflow: the same name means the same number in both. Everything comes from the document,
or from a file that it pins.
"""

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.artifacts.documents import (
    AnswerTimes,
    AttackResult,
    BackdoorReport,
    Baseline,
    Certificate,
    DetectionReport,
    Document,
    DriftReport,
    ExtractionReport,
    GateDecision,
    GuardCalibration,
    Model,
    MonitorReport,
    OperatingResult,
    Performance,
    Registration,
    RobustnessReport,
    RolloutRecord,
    ScanReport,
    SchemaReport,
    Snapshot,
    Verdict,
)
from holdfast.artifacts.folder import Artifact
from holdfast.artifacts.inspect import summary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_CLASSES = 50
"""Classes with metrics of their own, and in a confusion matrix."""
SINGLE, BATCH = "latency_ms/single_row", "latency_ms/batch_of_"
PAGES: Mapping[type[Document], str] = {
    DriftReport: "evidently.html",
    GateDecision: "decision.md",
    MonitorReport: "report.html",
    RolloutRecord: "incident.html",
}
"""Which file of an artifact a person opens first."""
MATRICES = {"confusion_matrix": "answer", "confusion_matrix_under_attack": "worst_answer"}
"""Output of the attack step -> the array of its flags that has the answers."""
Numbers = dict[str, float]


def page_of(artifact: Artifact[Any]) -> bytes:
    """That file; of a rollout that was promoted, which has none, the record itself as a page."""
    name = PAGES[type(artifact.document)]
    if name in artifact.document.files:
        return artifact.open(name).read()
    text = html.escape(summary(artifact))
    return f'<!doctype html><meta charset="utf-8"><title>Rollout</title><pre>{text}</pre>\n'.encode()


def measured(document: Document) -> Numbers:
    """The numbers of a document: rates and counts by name; none for a document that measures nothing."""
    return dict(_numbers(document))


def answer_times(found: AnswerTimes | None) -> Numbers:
    """How long the network takes to answer, in milliseconds, where that was measured."""
    if found is None:
        return {}
    return {SINGLE: found.single_row_ms, f"{BATCH}{found.batch_rows}": found.batch_ms}


@dataclass(frozen=True)
class Matrix:
    """How often examples of each class were answered with each class."""

    classes: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    """One for each class of the examples, in order; in it the counts by answer."""

    def for_kubeflow(self) -> dict[str, Any]:
        """As the metadata of a ClassificationMetrics of KFP."""
        names, rows = [{"displayName": name} for name in self.classes], [{"row": list(row)} for row in self.rows]
        return {"confusionMatrix": {"annotationSpecs": names, "rows": rows}}


def confusion_matrices(artifact: Artifact[Any]) -> dict[str, Matrix]:
    """By the name of the output: those of an attack step on its sample, without and under attack; else none.

    None, too, where there are more than `MOST_CLASSES` classes, or where the flags do not hold the classes of the
    examples: the step wrote them before it kept those.
    """
    document = artifact.document
    if not isinstance(document, RobustnessReport) or document.clean_performance is None:
        return {}
    classes = tuple(one.name for one in document.clean_performance.classes)
    if len(classes) > MOST_CLASSES:
        return {}
    import numpy as np

    with np.load(artifact.open("flags.npz"), allow_pickle=False) as flags:
        if "label" not in flags.files:
            return {}
        sample = slice(None, document.clean.n)
        label, answers = flags["label"][sample], {name: flags[key][sample] for name, key in MATRICES.items()}
    return {name: Matrix(classes, _counts(label, found, len(classes))) for name, found in answers.items()}


def _counts(label: "NDArray[np.int64]", answer: "NDArray[np.int64]", classes: int) -> tuple[tuple[int, ...], ...]:
    import numpy as np

    found = np.bincount(label * classes + answer, minlength=classes * classes).reshape(classes, classes)
    return tuple(tuple(int(one) for one in row) for row in found)


def _numbers(document: Document) -> Iterator[tuple[str, float]]:
    for kind, numbers in _KINDS.items():
        if isinstance(document, kind):
            yield from numbers(document)


def _of_guard(document: GuardCalibration) -> Iterator[tuple[str, float]]:
    yield "guard/least_p", document.least_p
    yield "guard/users_alarmed", document.benign.k
    for stream in document.streams:
        if stream.alarm_at is not None:
            yield f"guard/alarm_at/{stream.name}", stream.alarm_at


def _of_detectors(document: DetectionReport) -> Iterator[tuple[str, float]]:
    for detector in document.detectors:
        yield f"detect/false_alarms/{detector.name}", detector.false_alarms.share
        yield f"detect/evaded/{detector.name}", detector.evaded.share
        for one in detector.caught:
            if one.caught.n:
                yield f"detect/caught/{detector.name}/{key(one.attack)}", one.caught.share
    for purifier in document.purifiers:
        yield f"detect/purified/{purifier.name}", purifier.adaptive.share


def _of_extraction(document: ExtractionReport) -> Iterator[tuple[str, float]]:
    if document.budget is not None:
        yield "extraction/budget", document.budget
    for curve in document.curves:
        for point in curve.points:
            yield f"extraction/agreement/{curve.strategy}/{curve.outputs}/{point.queries}", point.agreed.share


def _of_snapshot(document: Snapshot) -> Iterator[tuple[str, float]]:
    yield "data/train_rows", document.train_rows
    yield "data/held_out_rows", document.test_rows
    yield "data/classes", len(document.classes)
    if document.leaked_rows is not None:
        yield "data/leaked_rows", document.leaked_rows


def _of_baseline(document: Baseline) -> Iterator[tuple[str, float]]:
    if document.model_version is not None:
        yield "champion/version", document.model_version


def _of_schema(document: SchemaReport) -> Iterator[tuple[str, float]]:
    yield "schema/anomalies", len(document.anomalies)


def _of_drift(document: DriftReport) -> Iterator[tuple[str, float]]:
    yield "drift/columns", document.drifted.k
    yield "drift/share", document.drifted.share


def _of_scan(document: ScanReport) -> Iterator[tuple[str, float]]:
    yield "scan/suspects", document.suspects.k
    yield "scan/quarantined", len(document.quarantined)
    if document.held_out:
        yield "scan/held_out_suspects", document.held_out.suspects.k


def _of_model(document: Model) -> Iterator[tuple[str, float]]:
    yield "train/clean_accuracy", document.clean.share
    yield "train/robust_accuracy", document.robust.share
    yield "train/best_epoch", document.best_epoch


def _of_backdoor(document: BackdoorReport) -> Iterator[tuple[str, float]]:
    yield "backdoor/flagged", len(document.flagged)


def _of_attack(document: RobustnessReport) -> Iterator[tuple[str, float]]:
    yield "clean_accuracy", document.clean.share
    yield "robust_accuracy", document.worst_case.share
    for attack in document.attacks:
        yield f"robust_accuracy/{_attack(attack)}", attack.survived.share
    yield from _performance("", document.clean_performance)
    yield from _performance("robust_", document.worst_case_performance)
    yield from _operating(document.operating_point)


def _of_certificate(document: Certificate) -> Iterator[tuple[str, float]]:
    for point in document.certified:
        yield f"certified_accuracy/{point.radius:g}", point.certified.share
    yield "abstained", document.abstained.share


def _of_decision(document: GateDecision) -> Iterator[tuple[str, float]]:
    yield "gate/checks", len(document.checks)
    for verdict in Verdict:
        yield f"gate/checks_{verdict}", sum(check.verdict is verdict for check in document.checks)
    for check in document.checks:
        values = {"": check.measured, "/lower": check.lower, "/upper": check.upper}
        yield from ((f"gate/{key(check.name)}{what}", value) for what, value in values.items() if value is not None)


def _of_registration(document: Registration) -> Iterator[tuple[str, float]]:
    yield "model_version", document.model_version
    yield from answer_times(document.latency).items()


def _of_rollout(document: RolloutRecord) -> Iterator[tuple[str, float]]:
    yield "rollout/requests_sent", document.requests_sent
    yield "rollout/requests_failed", document.requests_failed


def _of_monitor(document: MonitorReport) -> Iterator[tuple[str, float]]:
    yield "monitor/windows", document.windows
    for stage in document.stages:
        yield f"monitor/{stage.stage}/evidence", stage.evidence
        yield f"monitor/{stage.stage}/limit", stage.limit
        yield f"monitor/{stage.stage}/alarm", float(stage.alarm)


_KINDS: Mapping[type[Document], Any] = {
    Snapshot: _of_snapshot, Baseline: _of_baseline, SchemaReport: _of_schema, DriftReport: _of_drift,
    ScanReport: _of_scan, Model: _of_model, BackdoorReport: _of_backdoor, RobustnessReport: _of_attack,
    Certificate: _of_certificate, GateDecision: _of_decision, Registration: _of_registration,
    RolloutRecord: _of_rollout, GuardCalibration: _of_guard, MonitorReport: _of_monitor,
    ExtractionReport: _of_extraction, DetectionReport: _of_detectors,
}  # fmt: skip


def _performance(prefix: str, found: Performance | None) -> Iterator[tuple[str, float]]:
    """Recall and precision of each class, up to `MOST_CLASSES`, their mean, and the areas of two classes."""
    if found is None:
        return
    yield f"{prefix}balanced_accuracy", found.balanced_accuracy
    areas = {"roc_auc": found.roc_auc, "pr_auc": found.pr_auc}
    yield from ((f"{prefix}{name}", value) for name, value in areas.items() if value is not None)
    for one in found.classes[:MOST_CLASSES]:
        for what, count in (("recall", one.recall), ("precision", one.precision)):
            if count.n:
                yield f"{prefix}{what}/{key(one.name)}", count.share


def _operating(found: OperatingResult | None) -> Iterator[tuple[str, float]]:
    """Wrong answers of both kinds in 1,000 rows, and their cost where costs were given, without and under attack."""
    if found is None:
        return
    named = {"": found.clean, "robust_": found.worst_case, "constant_": found.constant_errors}
    for prefix, errors in named.items():
        misses, alarms = found.per_thousand(errors)
        yield f"{prefix}misses_per_1000", misses
        yield f"{prefix}false_alarms_per_1000", alarms
        if found.point.costs is not None:
            yield f"{prefix}cost_per_1000", found.cost(errors)


def _attack(attack: AttackResult) -> str:
    """A name of its own for each attack: the second opinion's attacks are called as ours are."""
    library = attack.library.partition(" ")[0]
    return attack.name if library == "holdfast" else f"{library}/{attack.name}"


def key(name: str) -> str:
    """A class's or a check's name as a part of a metric's; MLflow takes few characters."""
    return re.sub(r"[^\w\-. ]", "_", name, flags=re.ASCII).strip() or "_"
