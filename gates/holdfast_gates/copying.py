"""The checks of how well a model can be copied, and of the guard that is to notice it. Pure, as `checks`."""

from typing import get_args

from holdfast.artifacts.documents import (
    CheckResult,
    ExtractionCurve,
    ExtractionPoint,
    ExtractionReport,
    ExtractionStrategy,
    GuardCalibration,
    Verdict,
    worst,
)
from holdfast.statistics import Interval, clopper_pearson
from holdfast_gates.checks import UNDECIDED, at_most, no_evidence, some
from holdfast_gates.policy import CopiesAgree, FalseAlarms, StreamNoticed


def extraction_agreement(report: ExtractionReport, asked: CopiesAgree, alpha: float) -> CheckResult:
    """No copy that was made with so many queries or fewer agrees too often with the model."""
    found = [(curve, point) for curve in report.curves for point in curve.points if point.queries <= asked.at_queries]
    if not found:
        return no_evidence(f"no copy was made with {asked.at_queries} queries or fewer (`extract.queries`)")
    judged = [at_most(_bounds(point, alpha), asked.at_most) for _, point in found]
    curve, point = max(found, key=lambda one: _bounds(one[1], alpha).upper)
    bounds, verdict, missing = _bounds(point, alpha), worst(judged), _not_tried(report, asked.at_queries)
    if missing and verdict is not Verdict.FAIL:
        return no_evidence(f"{some(missing)}: run `holdfast extract` with {asked.at_queries} queries")
    copy = f"{curve.strategy}, from {_WORDS[curve.outputs]}, at {point.queries} queries"
    return CheckResult(
        measured=point.agreed.share,
        count=point.agreed,
        lower=bounds.lower,
        upper=bounds.upper,
        required=f"at most {asked.at_most:.3f} with {asked.at_queries} queries",
        verdict=verdict,
        reason=f"{copy}; {UNDECIDED}" if verdict is Verdict.INCONCLUSIVE else copy,
    )


def guard_false_alarms(report: GuardCalibration, asked: FalseAlarms) -> CheckResult:
    """A client who asks as users do is hardly ever alarmed: by the proof, and of the made-up users none."""
    if not report.benign.n:
        return no_evidence("the calibration tried no made-up user")
    quiet = report.alpha <= asked.per_client_at_most and report.benign.k == 0
    return CheckResult(
        measured=report.alpha,
        required=f"at most {asked.per_client_at_most:g} per client, and no made-up user alarmed",
        verdict=Verdict.PASS if quiet else Verdict.FAIL,
        reason=f"{report.benign.k} of {report.benign.n} made-up users alarmed; confidence {report.confidence:g}",
    )


def guard_detection(report: GuardCalibration, asked: StreamNoticed) -> CheckResult:
    """A made-up attacker is alarmed after few queries."""
    stream = next((one for one in report.streams if one.name == asked.stream), None)
    if stream is None:
        return no_evidence(f"the calibration tried no client of the kind {asked.stream}")
    if stream.alarm_at is None and stream.queries < asked.queries_at_most:
        return no_evidence(f"the client of the kind {asked.stream} asked only {stream.queries} queries")
    noticed = stream.alarm_at is not None and stream.alarm_at <= asked.queries_at_most
    return CheckResult(
        measured=float(stream.alarm_at or stream.queries),
        required=f"an alarm after at most {asked.queries_at_most} queries",
        verdict=Verdict.PASS if noticed else Verdict.FAIL,
        reason=f"{stream.name}: " + (f"after {stream.alarm_at}" if stream.alarm_at else f"none in {stream.queries}"),
    )


_WORDS = {"label": "classes", "rounded": "rounded probabilities", "full": "probabilities"}


def _bounds(point: ExtractionPoint, alpha: float) -> Interval:
    return clopper_pearson(point.agreed.k, point.agreed.n, alpha)


def _not_tried(report: ExtractionReport, queries: int) -> list[str]:
    """Strategies that were neither tried up to so many queries, nor left out for a reason that the step found."""
    reasons = {one.strategy for one in report.left_out}
    return [
        f"{name} was not tried with {queries} queries"
        for name in get_args(ExtractionStrategy)
        if name not in reasons and not any(_reaches(curve, name, queries) for curve in report.curves)
    ]


def _reaches(curve: ExtractionCurve, strategy: ExtractionStrategy, queries: int) -> bool:
    return curve.strategy == strategy and any(point.queries == queries for point in curve.points)
