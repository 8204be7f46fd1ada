"""Ranks instead of values: detectors with different units can be compared."""

import numpy as np
from numpy.typing import NDArray


def ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[N] in [0, 1): the share of rows that stand below each row; equal scores share their lowest rank."""
    ordered = np.sort(scores)
    return np.searchsorted(ordered, scores, side="left") / max(1, len(scores))


def class_ranks(scores: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ranks like `ranks`, within each class y."""
    result = np.zeros(len(y))
    for label in np.unique(y):
        rows = y == label
        result[rows] = ranks(scores[rows])
    return result
