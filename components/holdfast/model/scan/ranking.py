"""Ranks instead of values: detectors with different units vote, and one that fails cannot outvote the others."""

import numpy as np
from numpy.typing import NDArray


def ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[N] in [0, 1): the share of rows that stand below each row; equal scores share their lowest rank."""
    ordered = np.sort(scores)
    return np.searchsorted(ordered, scores, side="left") / max(1, len(scores))


def class_ranks(scores: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """As `ranks`, within each class y."""
    result = np.zeros(len(y))
    for label in np.unique(y):
        rows = y == label
        result[rows] = ranks(scores[rows])
    return result


def vote(detectors: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The median over detectors of each row's rank: with three or more, one detector that fails changes little."""
    if not detectors:
        raise ValueError("a vote needs at least one detector")
    return np.asarray(np.median([ranks(scores) for scores in detectors], axis=0), dtype=np.float64)
