"""How many queries a client may have: no more than were measured, and so few that no copy came close. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.artifacts.documents import ExtractionCurve, ExtractionPoint
from holdfast.statistics import Interval, clopper_pearson


@dataclass(frozen=True)
class QueryBudget:
    """The largest measured number of queries that keeps every copy below the limit."""

    queries: int | None
    """None: the smallest measured number does not."""
    reason: str


def budget(curves: Sequence[ExtractionCurve], *, at_most: float, alpha: float) -> QueryBudget:
    """The least of what each curve allows: its last point before the first whose upper bound is above `at_most`.

    Between two points nothing is guessed, and nothing beyond the last: a strategy that had no more to ask bounds the
    budget, too.

    Args:
        curves: at least one.
        at_most: the agreement, 0 to 1.
        alpha: of each upper bound.
    """
    found = [_allowed(curve, at_most, alpha) for curve in curves]
    return min(found, key=lambda one: one.queries or 0)


def bounds(point: ExtractionPoint, alpha: float) -> Interval:
    """Both one-sided bounds of the agreement."""
    return clopper_pearson(point.agreed.k, point.agreed.n, alpha)


def _allowed(curve: ExtractionCurve, at_most: float, alpha: float) -> QueryBudget:
    who, last = f"{curve.strategy} ({curve.outputs})", None
    for point in curve.points:
        upper = bounds(point, alpha).upper
        if upper > at_most:
            agreed = f"{point.agreed.k} of {point.agreed.n} at {point.queries} queries, at most {upper:.3f}"
            return QueryBudget(last, f"{who}: the copy agrees on {agreed}: above {at_most:g}")
        last = point.queries
    return QueryBudget(last, f"{who}: not above {at_most:g} up to {last} queries; more were not measured")
