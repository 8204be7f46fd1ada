"""What a verdict lacks, for the terminal and the top of a report: the check, measured, required, what to do.

The data checks that stop a delivery before the gate are put in the same words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.artifacts.documents import Check, Document, DriftReport, GateDecision, SchemaReport, Verdict
from holdfast_gates.report import measured, what_to_do
from holdfast_gates.rules import RULES

_MOST = 3


@dataclass(frozen=True)
class Shortfall:
    """One check that did not pass."""

    check: str
    verdict: Verdict
    measured: str
    required: str
    found: str
    """What was found, in words; empty where the numbers are all."""
    advice: str
    by_gate: bool = True
    """Whether the gate judged; otherwise a check of the delivery."""

    @property
    def sentence(self) -> str:
        """The numbers in one line."""
        return f"{self.check} ({self.verdict}): measured {self.measured}, required {self.required}"


def of_document(document: Document) -> tuple[Shortfall, ...]:
    """What a decision, or a report of a data check, lacks; nothing for other documents."""
    if isinstance(document, GateDecision):
        return of_decision(document)
    if isinstance(document, SchemaReport):
        return of_schema(document)
    return of_drift(document) if isinstance(document, DriftReport) else ()


def of_decision(decision: GateDecision) -> tuple[Shortfall, ...]:
    """The checks that did not pass: failed ones, then those without an answer."""
    short = [check for check in decision.counting if check.verdict is not Verdict.PASS]
    return tuple(_of_check(check) for check in sorted(short, key=lambda check: check.verdict is not Verdict.FAIL))


def of_schema(report: SchemaReport) -> tuple[Shortfall, ...]:
    """What the delivery's columns lack."""
    if report.verdict is Verdict.PASS:
        return ()
    shown = [f"{one.column}: {one.detail}" for one in report.anomalies]
    count = len(report.anomalies)
    numbers = f"{count} {'anomaly' if count == 1 else 'anomalies'}", f"none in {report.columns} columns"
    return (_of_data("schema_anomalies", report.verdict, numbers, _listed(shown)),)


def of_drift(report: DriftReport) -> tuple[Shortfall, ...]:
    """What moved in the delivery."""
    if report.verdict is Verdict.PASS:
        return ()
    moved = sorted((one for one in report.stage_one if one.drifted), key=lambda one: -one.effect)
    shown = [report.reason, *(f"{one.column}: effect {one.effect:.2f}" for one in moved)]
    numbers = f"{report.drifted.k} of {report.drifted.n} columns drifted", "a distribution like the reference's"
    return (_of_data("drift", report.verdict, numbers, _listed(shown)),)


def _of_check(check: Check) -> Shortfall:
    return Shortfall(
        check.name, check.verdict, measured(check), check.required or "evidence", check.reason, what_to_do(check)
    )


def _of_data(rule: str, verdict: Verdict, numbers: tuple[str, str], found: str) -> Shortfall:
    return Shortfall(rule, verdict, *numbers, found, RULES[rule].advice, by_gate=False)


def _listed(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - _MOST} more" if len(lines) > _MOST else ""
    return "; ".join(lines[:_MOST]) + more
