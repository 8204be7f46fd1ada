"""An operating point in words, and what it brings as a table: for the report of a run and the gate's page."""

from holdfast.artifacts.documents import Errors, OperatingPoint, OperatingResult
from holdfast.rendering.numbers import CONFIDENCE, number
from holdfast.rendering.text import Row
from holdfast.statistics import sum_of_rates

NOTE = "Expected in 1,000 rows with the held-out rows' shares of both classes; in brackets the cost's 95 % interval."


def in_words(point: OperatingPoint) -> str:
    """Which class is answered when, and by which rule that was chosen."""
    return f"{point.positive!r} is answered above a margin of {point.threshold:.4g} ({point.rule})"


def chosen_on(point: OperatingPoint) -> str:
    """What the threshold did on the rows that it was chosen on."""
    misses, alarms = point.misses, point.false_alarms
    return f"{misses.k} of {misses.n} missed, {alarms.k} of {alarms.n} false alarms"


def head(result: OperatingResult) -> Row:
    """The names of the columns; a cost where costs were given."""
    cost = ("cost",) if result.point.costs else ()
    return ("per 1,000 rows", *cost, "misses", "false alarms")


def rows(result: OperatingResult) -> tuple[Row, ...]:
    """Without and under attack, without the threshold, and the constant answer that costs less."""
    return (
        _row(result, "no attack", result.clean),
        _row(result, "under attack", result.worst_case),
        _row(result, "no attack, without the threshold", result.without_threshold),
        _row(result, f"always {result.best_constant!r}", result.constant_errors, counted=False),
    )


def _row(result: OperatingResult, name: str, errors: Errors, *, counted: bool = True) -> Row:
    each = zip(result.per_thousand(errors), (errors.misses, errors.false_alarms), strict=True)
    cells = [number(value) + (f" ({count.k} of {count.n})" if counted else "") for value, count in each]
    if result.point.costs is None:
        return (name, *cells)
    cost = number(round(result.cost(errors), 1))
    return (name, f"{cost} {_interval(result, errors)}" if counted else cost, *cells)


def _interval(result: OperatingResult, errors: Errors) -> str:
    rates = [(count.k, count.n) for count in (errors.misses, errors.false_alarms)]
    bounds = sum_of_rates(rates, result.cost_of_each, (1 - CONFIDENCE) / 2)
    return f"[{bounds.lower:.0f}, {bounds.upper:.0f}]"
