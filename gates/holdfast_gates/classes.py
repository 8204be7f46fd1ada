"""The checks of single classes: what accuracy hides where one class is rare. Pure, as those in `checks`.

A class is judged by the bound of its own interval. All classes must pass, so a pass needs no correction for their
number; a fail, which one class alone decides, uses bounds at alpha / classes.
"""

from collections.abc import Iterable, Mapping

from holdfast.artifacts.documents import (
    Certificate,
    CheckResult,
    Count,
    Performance,
    RobustnessReport,
    Verdict,
    worst,
)
from holdfast.statistics import (
    Interval,
    chance_of_balanced_accuracy,
    lower_bound,
    mean_of_rates,
    upper_bound,
)
from holdfast_gates.checks import at_least, no_evidence, some
from holdfast_gates.policy import AtLeast, AtRadius, CheckConfig

_UNCOUNTED = "the report counts nothing by class"


def better_than_constant(report: RobustnessReport, asked: CheckConfig, alpha: float) -> CheckResult:
    """Better than answering one class always, without an attack and under all of them.

    By balanced accuracy, of which every constant answer reaches 1 / classes, in an exact test of independence.
    """
    clean, attacked = report.clean_performance, report.worst_case_performance
    if clean is None or attacked is None or not report.attacks:
        return no_evidence(_UNCOUNTED if report.attacks else "the report holds no attack")
    chances = _chance(clean), _chance(attacked)
    seen = [(one.recall.k, one.recall.n) for one in attacked.classes if one.recall.n]
    if len(seen) < 2:
        return no_evidence("the examples are of one class, which any constant answer may get right")
    bounds, chance = mean_of_rates(seen, alpha), 1 / len(seen)
    return CheckResult(
        measured=attacked.balanced_accuracy,
        lower=bounds.lower,
        upper=bounds.upper,
        required=f"balanced accuracy above {chance:.3f}, which any constant answer reaches (exact test at {alpha:g})",
        verdict=worst(_beats(one, p, alpha) for one, p in zip((clean, attacked), chances, strict=True)),
        reason=_blindness(clean) or _against_constant(clean, attacked, chances),
    )


def class_recall(report: RobustnessReport, asked: AtLeast, alpha: float) -> CheckResult:
    """Enough examples of every class are answered with it when nothing is changed."""
    if report.clean_performance is None:
        return no_evidence(_UNCOUNTED)
    return _every_class(_recalls(report.clean_performance), asked, alpha)


def robust_class_recall(report: RobustnessReport, asked: AtLeast, alpha: float) -> CheckResult:
    """Enough examples of every class are answered with it under every attack at once."""
    if report.worst_case_performance is None or not report.attacks:
        return no_evidence(_UNCOUNTED if report.attacks else "the report holds no attack")
    return _every_class(_recalls(report.worst_case_performance), asked, alpha)


def certified_class_recall(certificate: Certificate, asked: AtRadius, alpha: float) -> CheckResult:
    """Enough examples of every class are correct and certified at the radius."""
    fitting = [point for point in certificate.certified if point.radius >= asked.radius]
    if not fitting:
        return no_evidence(f"no certificate at radius {asked.radius:g} {certificate.unit}")
    point = min(fitting, key=lambda p: p.radius)
    if not point.classes:
        return no_evidence("the certificate counts nothing by class")
    check = _every_class(point.classes, asked, alpha)
    return check.model_copy(update={"required": f"{check.required} at radius {asked.radius:g} {certificate.unit}"})


def _every_class(counts: Mapping[str, Count], asked: AtLeast, alpha: float) -> CheckResult:
    bounds = {label: _bounds(count, alpha, len(counts)) for label, count in counts.items()}
    verdicts = {label: at_least(bounds[label], asked.at_least) for label in counts}
    weakest = min(counts, key=lambda label: (bounds[label].lower, counts[label].share))
    short = [
        _short_of(label, counts[label], verdicts[label]) for label in sorted(counts, key=lambda one: counts[one].share)
    ]
    return CheckResult(
        measured=counts[weakest].share,
        count=counts[weakest],
        lower=bounds[weakest].lower,
        upper=bounds[weakest].upper,
        required=f"at least {asked.at_least:.3f} of every class",
        verdict=worst(verdicts.values()),
        reason=some([line for line in short if line]) or f"{len(counts)} classes; the weakest is {weakest!r}",
    )


def _bounds(count: Count, alpha: float, classes: int) -> Interval:
    return Interval(lower_bound(count.k, count.n, alpha), upper_bound(count.k, count.n, alpha / classes))


def _short_of(label: str, count: Count, verdict: Verdict) -> str:
    if verdict is Verdict.PASS:
        return ""
    told = f"{label!r}: {count.k} of {count.n}"
    return told if verdict is Verdict.FAIL else f"{told}, too few examples of this class to decide"


def _recalls(performance: Performance) -> dict[str, Count]:
    return {one.name: one.recall for one in performance.classes}


def _chance(performance: Performance) -> float:
    results = performance.classes
    return chance_of_balanced_accuracy(
        [one.recall.k for one in results], [one.recall.n for one in results], [one.answers for one in results]
    )


def _beats(performance: Performance, p: float, alpha: float) -> Verdict:
    if p <= alpha:
        return Verdict.PASS
    seen = sum(1 for one in performance.classes if one.recall.n)
    return Verdict.INCONCLUSIVE if performance.balanced_accuracy > 1 / seen else Verdict.FAIL


def _blindness(clean: Performance) -> str:
    """Which classes are never answered, and what accuracy is then; empty when every class is."""
    if not clean.never_answered:
        return ""
    rows = {one.name: one.recall.n for one in clean.classes}
    told = some([f"never answers {name!r} (0 of {rows[name]})" for name in clean.never_answered])
    constant = clean.best_constant
    return f"{told}; {constant.share:.3f} of the examples are of one class, so accuracy alone cannot show it"


def _against_constant(clean: Performance, attacked: Performance, chances: Iterable[float]) -> str:
    parts = zip(("clean", "under attack"), (clean, attacked), chances, strict=True)
    return "; ".join(f"{name} {one.balanced_accuracy:.3f} (p = {p:.2g})" for name, one, p in parts)
