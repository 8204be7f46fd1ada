"""Histograms of both sides, small enough to plot and to keep."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.data.drift.columns import CategoryCounts

BINS = 20
MAX_CATEGORIES = 30
_TAIL = 0.005


def histogram(reference: NDArray[np.float64], current: NDArray[np.float64]) -> dict[str, list[Any]]:
    """`edges` float[21] over the middle 99 % of both sides, and counts int[20] per side; the ends hold the tails."""
    pooled = np.concatenate([reference, current])
    lower, upper = (float(edge) for edge in np.quantile(pooled, [_TAIL, 1 - _TAIL]))
    if not lower < upper:
        lower, upper = float(pooled.min()), float(pooled.max())
    if not lower < upper:
        lower, upper = lower - 0.5, upper + 0.5
    edges = np.linspace(lower, upper, BINS + 1)
    sides = [np.histogram(np.clip(side, lower, upper), edges)[0].tolist() for side in (reference, current)]
    return {"edges": edges.tolist(), "reference": sides[0], "current": sides[1]}


def bars(counts: CategoryCounts) -> dict[str, list[Any]]:
    """`categories` and counts per side; the most frequent 30 categories, in order, and the others as one."""
    total = counts.reference + counts.current
    kept = np.sort(np.argsort(-total, kind="stable")[:MAX_CATEGORIES])
    names = [counts.names[i] for i in kept]
    reference, current = counts.reference[kept].tolist(), counts.current[kept].tolist()
    if len(kept) < len(total):
        names.append("(others)")
        reference.append(int(counts.reference.sum()) - sum(reference))
        current.append(int(counts.current.sum()) - sum(current))
    return {"categories": names, "reference": reference, "current": current}
