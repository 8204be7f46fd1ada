"""The checks, one function each: a document and its thresholds in, what was found out. rules.py lists them.

Everything here is pure. A rate passes when its confidence bound is on the right side of the threshold, fails when
even the other bound is on the wrong side, and is inconclusive in between: more examples would tell.
"""

from collections.abc import Mapping

from holdfast.artifacts.documents import (
    BackdoorReport,
    Certificate,
    CheckResult,
    Count,
    DriftReport,
    MaskingCheck,
    Paired,
    Performance,
    RobustnessReport,
    ScanReport,
    SchemaReport,
    Snapshot,
    Verdict,
)
from holdfast.statistics import Interval, clopper_pearson
from holdfast_gates.policy import AtLeast, AtMost, AtRadius, LeakedRows, SuspectsLeft, VerdictCheck

ONE_CLASS = "only one class is right"
UNDECIDED = "the interval contains the threshold: evaluate more examples"


def at_least(bounds: Interval, required: float) -> Verdict:
    """Judges a rate that must be large."""
    if bounds.lower >= required:
        return Verdict.PASS
    return Verdict.FAIL if bounds.upper < required else Verdict.INCONCLUSIVE


def at_most(bounds: Interval, required: float) -> Verdict:
    """Judges a rate that must be small."""
    if bounds.upper <= required:
        return Verdict.PASS
    return Verdict.FAIL if bounds.lower > required else Verdict.INCONCLUSIVE


def schema_anomalies(report: SchemaReport, asked: VerdictCheck) -> CheckResult:
    """The data keeps to its schema."""
    found = [f"{anomaly.column}: {anomaly.kind}" for anomaly in report.anomalies]
    return CheckResult(
        measured=float(len(found)),
        required=_accepts(asked),
        verdict=pass_if_accepted(report.verdict, asked),
        reason=some(found) or f"{report.columns} columns keep to the {report.source} schema",
    )


def leakage(snapshot: Snapshot, asked: LeakedRows) -> CheckResult:
    """Few held-out rows are equal to a training row: what a model answers to such rows is memory.

    All held-out rows are compared, so there is no interval.
    """
    if snapshot.leaked_rows is None:
        return no_evidence("the snapshot does not count held-out rows that are equal to training rows: run it again")
    leaked = Count(k=snapshot.leaked_rows, n=snapshot.test_rows)
    return CheckResult(
        measured=leaked.share,
        count=leaked,
        required=f"at most {asked.at_most:.3f} of the held-out rows",
        verdict=Verdict.PASS if leaked.share <= asked.at_most else Verdict.FAIL,
        reason=f"{leaked.k} of {leaked.n} held-out rows have the values of a training row",
    )


def drift(report: DriftReport, asked: VerdictCheck) -> CheckResult:
    """The delivery is not broken."""
    return CheckResult(
        measured=report.drifted.share,
        count=report.drifted,
        required=_accepts(asked),
        verdict=pass_if_accepted(report.verdict, asked),
        reason=report.reason,
    )


def poison(report: ScanReport, asked: SuspectsLeft) -> CheckResult:
    """No suspect row was left in the training rows.

    A scan that only reports, and found something, fails: the model was trained on rows that were not reviewed.
    """
    set_aside = len(report.left_out)
    left = Count(k=max(report.suspects.k - set_aside, 0), n=report.suspects.n)
    kept = left.share <= asked.left_in_at_most
    alarms = [detector.name for detector in report.detectors if detector.alarm]
    found = f"{set_aside} of {report.suspects.k} suspect rows are in quarantine"
    return CheckResult(
        measured=left.share,
        count=left,
        required=f"at most {asked.left_in_at_most:.3f} of the rows suspect and left in; {_accepts(asked)}",
        verdict=pass_if_accepted(report.verdict, asked) if kept else Verdict.FAIL,
        reason=found + (f"; alarms: {', '.join(alarms)}" if alarms else ""),
    )


def backdoor(report: BackdoorReport, asked: VerdictCheck) -> CheckResult:
    """No class has a trigger."""
    flagged = [t for t in report.triggers if t.flagged or t.target in report.flagged]
    found = [f"{t.target}: size {t.size:.3g}, anomaly index {t.anomaly_index:.2f}" for t in flagged]
    verdict = Verdict.FAIL if flagged or report.flagged else pass_if_accepted(report.verdict, asked)
    return CheckResult(
        measured=float(len(report.flagged)),
        required=f"no flagged class; {_accepts(asked)}",
        verdict=verdict,
        reason=report.reason
        or some(found or list(report.flagged))
        or f"{len(report.triggers)} classes inverted by {report.method}",
    )


def clean_accuracy(report: RobustnessReport, asked: AtLeast, alpha: float) -> CheckResult:
    """Enough held-out examples are correct without an attack."""
    check = _of_classes(_accuracy(report.clean, asked, alpha), _recalls(report.clean_performance))
    return check.model_copy(update={"champion": _champion(report.champion_clean)})


def robust_accuracy(report: RobustnessReport, asked: AtLeast, alpha: float) -> CheckResult:
    """Enough held-out examples are correct under every attack at once; without an attack there is no evidence."""
    if not report.attacks:
        return no_evidence("the report holds no attack")
    check = _of_classes(_accuracy(report.worst_case, asked, alpha), _recalls(report.worst_case_performance))
    return check.model_copy(update={"champion": _champion(report.champion_worst_case)})


def gradient_masking(report: RobustnessReport, asked: VerdictCheck) -> CheckResult:
    """No sign was found that the accuracy under attack is overestimated."""
    if not report.masking:
        return no_evidence("the report holds no sign that was looked for")
    signs = [sign for sign in report.masking if sign.verdict is not Verdict.PASS]
    order = list(Verdict)
    found = max((sign.verdict for sign in report.masking), key=order.index)
    return CheckResult(
        measured=float(len(signs)),
        required=f"no sign that robustness is overestimated; {_accepts(asked)}",
        verdict=pass_if_accepted(found, asked),
        reason=some([_sign(sign) for sign in signs]) or f"{len(report.masking)} signs looked for, none found",
    )


def _sign(sign: MaskingCheck) -> str:
    told = f"{sign.name}: {sign.detail}"
    return f"overestimated: {told}" if sign.verdict is Verdict.FAIL else told


def certified_accuracy(certificate: Certificate, asked: AtRadius, alpha: float) -> CheckResult:
    """Enough held-out examples are correct and certified at the radius.

    A certificate at a larger radius holds at every smaller one, so the smallest radius at or above the asked one
    is read.
    """
    fitting = [point for point in certificate.certified if point.radius >= asked.radius]
    if not fitting:
        return no_evidence(f"no certificate at radius {asked.radius:g} {certificate.unit}")
    point = min(fitting, key=lambda p: p.radius)
    check = _of_classes(_accuracy(point.certified, asked, alpha), point.classes)
    return check.model_copy(
        update={
            "required": f"{check.required} at radius {asked.radius:g} {certificate.unit}",
            "reason": check.reason or f"{certificate.method} at {point.radius:g} ({certificate.norm})",
        }
    )


def abstention(certificate: Certificate, asked: AtMost, alpha: float) -> CheckResult:
    """The smoothed model answers often enough."""
    bounds = clopper_pearson(certificate.abstained.k, certificate.abstained.n, alpha)
    verdict = at_most(bounds, asked.at_most) if certificate.abstained.n else Verdict.INCONCLUSIVE
    return CheckResult(
        measured=certificate.abstained.share,
        count=certificate.abstained,
        lower=bounds.lower,
        upper=bounds.upper,
        required=f"at most {asked.at_most:.3f}",
        verdict=verdict,
        reason=UNDECIDED if verdict is Verdict.INCONCLUSIVE else "",
    )


def no_evidence(why: str) -> CheckResult:
    """What is not known is not a pass."""
    return CheckResult(required="evidence", verdict=Verdict.INCONCLUSIVE, reason=f"no evidence: {why}")


def _accuracy(count: Count, asked: AtLeast, alpha: float) -> CheckResult:
    bounds = clopper_pearson(count.k, count.n, alpha)
    verdict = at_least(bounds, asked.at_least) if count.n else Verdict.INCONCLUSIVE
    return CheckResult(
        measured=count.share,
        count=count,
        lower=bounds.lower,
        upper=bounds.upper,
        required=f"at least {asked.at_least:.3f}",
        verdict=verdict,
        reason=UNDECIDED if verdict is Verdict.INCONCLUSIVE else "",
    )


def _of_classes(check: CheckResult, recalls: Mapping[str, Count]) -> CheckResult:
    """The check of an accuracy; no pass where all that is right is of one class, as with a constant answer."""
    others = [f"{name!r} (0 of {count.n})" for name, count in recalls.items() if count.n and not count.k]
    right = [name for name, count in recalls.items() if count.k]
    if check.verdict is not Verdict.PASS or len(right) != 1 or not others:
        return check
    reason = f"{ONE_CLASS}, {right[0]!r}, never {some(others)}: accuracy alone cannot show that"
    return check.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": reason})


def _recalls(performance: Performance | None) -> dict[str, Count]:
    return {} if performance is None else {one.name: one.recall for one in performance.classes}


def pass_if_accepted(verdict: Verdict, asked: VerdictCheck) -> Verdict:
    """Pass for a verdict of the evidence that the policy accepts, else that verdict."""
    order = list(Verdict)
    accepted = order.index(verdict) <= order.index(Verdict(asked.worst_accepted))
    return Verdict.PASS if accepted else verdict


def _accepts(asked: VerdictCheck) -> str:
    return "verdict pass" if asked.worst_accepted == "pass" else "no verdict fail"


def _champion(pairs: Paired | None) -> float | None:
    return None if pairs is None else pairs.champion_right.share


def some(texts: list[str], most: int = 5) -> str:
    """The first texts, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more
