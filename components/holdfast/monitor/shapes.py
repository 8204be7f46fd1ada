"""Did a series change at once, or little by little? The nearer of two curves, by least squares.

Sudden: two levels with a step between them, as when a feed breaks or a unit changes. Gradual: level, then a straight
line, as when people change. Both have one place that is chosen and two heights, so their errors compare directly.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ChangeKind = Literal["sudden", "gradual", "unclear"]
LEAST_AFTER = 6
"""Windows after the change from which on the two curves can differ."""
_BEFORE = 48
"""Windows before the change that are fitted."""
_CLEARLY = 0.05
"""Share by which the smaller error must be smaller."""


@dataclass(frozen=True)
class ChangePoint:
    """Where a series changed, and how."""

    began: int
    """Index of the first changed value."""
    shape: ChangeKind


def change(series: NDArray[np.float64], least: int) -> ChangePoint:
    """The change of a series that is known to have changed.

    Args:
        series: float64[n], one value a window, with n > least.
        least: the change is at this index or later; those before it are stable.
    """
    start = max(0, least - _BEFORE)
    y = series[start:].astype(np.float64)
    places = range(max(least - start, 1), len(y))
    steps, ramps = ([_error(y, curve(len(y), at)) for at in places] for curve in (_step, _ramp))
    step, ramp = min(steps), min(ramps)
    sudden = step <= ramp
    at = places[int(np.argmin(steps if sudden else ramps))]
    return ChangePoint(start + at, _shape(step, ramp, len(y) - at))


def _shape(step: float, ramp: float, after: int) -> ChangeKind:
    if after < LEAST_AFTER:
        return "sudden" if step <= ramp else "unclear"
    if abs(step - ramp) < _CLEARLY * max(step, ramp):
        return "unclear"
    return "sudden" if step < ramp else "gradual"


def _step(length: int, at: int) -> NDArray[np.float64]:
    return (np.arange(length) >= at).astype(np.float64)


def _ramp(length: int, at: int) -> NDArray[np.float64]:
    return np.maximum(np.arange(length) - at + 1, 0).astype(np.float64)


def _error(y: NDArray[np.float64], curve: NDArray[np.float64]) -> float:
    """The sum of squares that a level and a multiple of the curve leave."""
    centred, about = y - y.mean(), curve - curve.mean()
    size = float(about @ about)
    return float(centred @ centred) - (float(centred @ about) ** 2 / size if size > 0 else 0.0)
