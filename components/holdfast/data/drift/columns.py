"""Stage one: does a column come from another distribution, and by how much?

A column has drifted when a test rejects at the level alpha / m (Bonferroni, m columns) *and* the effect matters: the
test alone calls a shift of 0.01 standard deviations in a million rows drift, the effect alone calls noise in a hundred
rows drift. Both look at ranks or counts only: one value of 1e6 in 20,000 rows moves PSI from 0.99 to 0.02.

* number    two-sample Kolmogorov-Smirnov. With D the largest distance of the two distribution functions, the effect is
            the shift d between two unit normals that are D apart: D = 2 Phi(d/2) - 1, so d = 2 Phi^-1((1 + D) / 2).
            For normals it is Cohen's d; unlike a difference of means it also sees a change of scale.
* category  G-test (likelihood ratio, Sokal & Rohlf 1981) on the 2 x K table, categories seen fewer than ten times
            pooled, so that one unknown value is no drift. The effect is the total variation distance.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

RARE = 10
_LARGEST_D = 1 - 1e-6

ColumnKind = Literal["number", "category"]
TESTS: dict[ColumnKind, str] = {"number": "Kolmogorov-Smirnov p", "category": "G-test p"}


@dataclass(frozen=True)
class CategoryCounts:
    """How often each category occurs on each side: int64[K] each, in the order of `names`."""

    names: tuple[str, ...]
    reference: NDArray[np.int64]
    current: NDArray[np.int64]


def ks_distance(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """The largest distance between the two empirical distribution functions, in [0, 1]."""
    reference, current = np.sort(reference), np.sort(current)
    points = np.concatenate([reference, current])
    below = [np.searchsorted(side, points, side="right") / len(side) for side in (reference, current)]
    return float(np.abs(below[0] - below[1]).max())


def shift(distance: float) -> float:
    """The shift, in standard deviations, that puts two normal distributions `distance` apart; at most 9.8."""
    from scipy.special import ndtri

    return float(2 * ndtri((1 + min(distance, _LARGEST_D)) / 2))


def count(reference: NDArray[Any], current: NDArray[Any]) -> CategoryCounts:
    """Counts per category over the categories of both sides, sorted."""
    names = sorted({str(value) for value in reference} | {str(value) for value in current})
    sides = []
    for side in (reference, current):
        values, counts = np.unique(side.astype(str), return_counts=True)
        known = dict(zip(values.tolist(), counts.tolist(), strict=True))
        sides.append(np.array([known.get(name, 0) for name in names], dtype=np.int64))
    return CategoryCounts(tuple(names), sides[0], sides[1])


def total_variation(counts: CategoryCounts) -> float:
    """Half the sum of the absolute differences of the shares, in [0, 1]."""
    shares = [side / side.sum() for side in (counts.reference, counts.current)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def g_test(counts: CategoryCounts) -> float:
    """The p-value that both sides have the same shares; 1 when one category is left after pooling the rare ones."""
    from scipy.special import chdtrc, xlogy

    observed = _pooled(np.stack([counts.reference, counts.current]))
    if observed.shape[1] < 2:
        return 1.0
    expected = observed.sum(axis=1, keepdims=True) * observed.sum(axis=0, keepdims=True) / observed.sum()
    statistic = 2 * xlogy(observed, observed / expected).sum()
    return float(chdtrc(observed.shape[1] - 1, max(statistic, 0.0)))


def _pooled(observed: NDArray[np.int64]) -> NDArray[np.int64]:
    """The table int64[2, K] with the rare categories as one column, which joins the smallest when still rare."""
    rare = observed.sum(axis=0) < RARE
    kept, pool = observed[:, ~rare], observed[:, rare].sum(axis=1, keepdims=True)
    if pool.sum() == 0:
        return kept
    if pool.sum() >= RARE or kept.shape[1] == 0:
        return np.hstack([kept, pool])
    smallest = int(kept.sum(axis=0).argmin())
    kept = kept.copy()
    kept[:, smallest] += pool[:, 0]
    return kept
