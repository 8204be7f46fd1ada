"""What an artifact shows, in one line of a timeline."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.artifacts.documents import (
    GateDecision,
    Model,
    MonitorReport,
    Review,
    RolloutRecord,
    ScanReport,
    Snapshot,
    Verdict,
)
from holdfast.artifacts.inspect import verdict_of


def words(document: Any) -> str:
    """Its kind, its verdict, and what a person on call asks first."""
    more = _MORE.get(type(document), lambda _: "")(document)
    judged = f"{document.kind}: {verdict_of(document)}" if hasattr(document, "verdict") else str(document.kind)
    return f"{judged}, {more}" if more else judged


def _scan(report: ScanReport) -> str:
    suspects, left = report.suspects, len(report.left_out)
    return f"{suspects.k} of {suspects.n} rows suspect, {left} not trained on"


def _review(review: Review) -> str:
    decided = Counter((entry.decision, entry.by) for entry in review.entries)
    parts = [f"{number} to {decision} by {by}" for (decision, by), number in sorted(decided.items())]
    return ", ".join([f"{len(review.undecided)} rows undecided", *parts])


def _decision(decision: GateDecision) -> str:
    held = [check.name for check in decision.checks if check.verdict is not Verdict.PASS]
    return f"policy {decision.policy_name}" + (f", not passed: {', '.join(held)}" if held else "")


def _rollout(record: RolloutRecord) -> str:
    failed = f"{record.requests_failed} of {record.requests_sent} requests failed"
    return f"version {record.candidate_version} {record.outcome}: {record.reason}; {failed}"


def _model(model: Model) -> str:
    return f"{model.name}, {model.clean.k} of {model.clean.n} held-out rows right"


def _snapshot(data: Snapshot) -> str:
    return f"{data.name}, {data.train_rows} and {data.test_rows} rows, root {data.root[:12]}…"


def _monitored(report: MonitorReport) -> str:
    return f"{report.first} to {report.last}: {report.reason}; next: {report.next}"


_MORE: Mapping[type, Callable[[Any], str]] = {
    ScanReport: _scan,
    Review: _review,
    GateDecision: _decision,
    RolloutRecord: _rollout,
    Model: _model,
    Snapshot: _snapshot,
    MonitorReport: _monitored,
}
