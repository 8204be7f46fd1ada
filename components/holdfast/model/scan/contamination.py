"""How many labels of a class are wrong: a calibrated model of the class, mixed with labels that ignore the model.

For one class c, s is the log-odds that models give it for rows that they did not see, and z = 1 where a row carries its
label. Without wrong labels z follows a logistic curve q(s) = 1 / (1 + exp(-a - b s)), however rare the class is and
however overconfident the models are: where the inputs say nothing about the class, b is 0 and q the share of the class.
Wrong labels come from outside the curve. With the share u of the other rows that carry the label c by mistake, and the
share v of the rows of c that carry another label,

    P(z = 1 | s) = u (1 - q(s)) + (1 - v) q(s).

Then rows with the label c do not die out where the curve does. a, b, u and v are fitted by maximum likelihood, and the
likelihood ratio against u = 0 is the evidence: a test of each class on its own rows, whose level does not depend on
the share of the class. It is a two-component version of the noise model of Menon, van Rooyen, Ong, Williamson,
"Learning from corrupted binary labels via class-probability estimation", ICML 2015, with Platt's curve for the class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_LOG_ODDS = 12.0
WIDTH = 0.05
"""Rows are counted in bins of this width of their log-odds, so that a fit takes the same time for a million rows."""
STEEPEST = 1.5
"""The models may be less sure than they should be, but not by more: a steeper curve takes what it misses for wrong."""
MOST = 0.5
"""The largest share of wrong labels that is considered: beyond it the curve could be either component."""
_SMALLEST = 1e-12
_STARTS = ((0.3, 1e-3), (1.0, 1e-2), (2.0, 1e-3))


@dataclass(frozen=True)
class BinnedRows:
    """Rows by their log-odds: float64[bins] each."""

    log_odds: NDArray[np.float64]
    """The mean of the bin."""
    labelled: NDArray[np.float64]
    """How many of its rows carry the label."""
    rows: NDArray[np.float64]


@dataclass(frozen=True)
class LabelModel:
    """The curve of a class and its wrong labels, see the module."""

    intercept: float
    slope: float
    wrongly_in: float
    """u: the share of the other classes' rows that carry the label."""
    wrongly_out: float
    """v: the share of the class's rows that carry another label."""
    cost: float
    """-log likelihood."""

    def curve(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """q: how probable the class is, of rows with these log-odds."""
        from scipy.special import expit

        return np.asarray(expit(self.intercept + self.slope * log_odds))

    def wrong(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """How probable it is that a row with the label belongs to another class."""
        q = self.curve(log_odds)
        by_mistake, rightly = self.wrongly_in * (1 - q), (1 - self.wrongly_out) * q
        return np.asarray(by_mistake / np.maximum(by_mistake + rightly, _SMALLEST))


def log_odds_of(belief: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds float64[N] of probabilities, within +-`MOST_LOG_ODDS`."""
    odds = np.log(np.maximum(belief, _SMALLEST)) - np.log(np.maximum(1 - belief, _SMALLEST))
    return np.asarray(np.clip(odds, -MOST_LOG_ODDS, MOST_LOG_ODDS), dtype=np.float64)


def binned(log_odds: NDArray[np.float64], labelled: NDArray[np.bool_]) -> BinnedRows:
    """Counts of rows by their log-odds."""
    place = np.floor((log_odds + MOST_LOG_ODDS) / WIDTH).astype(np.int64)
    rows = np.bincount(place)
    held = rows > 0
    means = np.bincount(place, weights=log_odds)[held] / rows[held]
    carry = np.bincount(place, weights=labelled)[held].astype(np.float64)
    return BinnedRows(means, carry, rows[held].astype(np.float64))


def fit(rows: BinnedRows, *, wrongly_in: float | None = None, slope: float | None = None) -> LabelModel:
    """The most likely model; u or b can be held at a value."""
    within = (0.0, MOST) if wrongly_in is None else (wrongly_in, wrongly_in)
    steep = (0.0, STEEPEST) if slope is None else (slope, slope)
    bounds = ((-30.0, 30.0), steep, within, (0.0, MOST))
    centre = float(np.average(rows.log_odds, weights=rows.rows))
    level = float(np.log((rows.labelled.sum() + 0.5) / (rows.rows.sum() - rows.labelled.sum() + 0.5)))
    found = [
        _descend(rows, (level - b * centre if b < 1 else 0.0, b, u, u), bounds)
        for b, u in (_STARTS if slope is None else ((slope, _STARTS[0][1]), (slope, 0.1)))
    ]
    return min(found, key=lambda model: model.cost)


def _descend(rows: BinnedRows, start: tuple[float, ...], bounds: tuple[tuple[float, float], ...]) -> LabelModel:
    from scipy.optimize import minimize

    inside = [min(max(value, low), high) for value, (low, high) in zip(start, bounds, strict=True)]
    found = minimize(_cost, inside, args=(rows,), jac=True, method="L-BFGS-B", bounds=bounds)
    a, b, u, v = (float(value) for value in found.x)
    return LabelModel(a, b, u, v, cost=float(found.fun))


def _cost(at: NDArray[np.float64], rows: BinnedRows) -> tuple[float, NDArray[np.float64]]:
    """-log likelihood at (a, b, u, v), and its gradient."""
    from scipy.special import expit

    a, b, u, v = at
    q = expit(a + b * rows.log_odds)
    p = np.clip(u * (1 - q) + (1 - v) * q, _SMALLEST, 1 - _SMALLEST)
    others = rows.rows - rows.labelled
    by_p = rows.labelled / p - others / (1 - p)
    by_a = by_p * (1 - u - v) * q * (1 - q)
    gradient = [by_a.sum(), (by_a * rows.log_odds).sum(), (by_p * (1 - q)).sum(), -(by_p * q).sum()]
    return -float((rows.labelled * np.log(p) + others * np.log1p(-p)).sum()), -np.array(gradient)
