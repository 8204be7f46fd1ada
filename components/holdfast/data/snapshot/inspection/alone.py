"""How well one column alone answers the label: near 1 it is often the label itself under another name."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SUSPICIOUS = 0.99
MIN_ROWS = 100
_MIN_PER_CLASS = 10


def balanced_accuracy_alone(values: NDArray[Any], y: NDArray[np.int64]) -> float:
    """The balanced accuracy of answering as the nearest value does in the other half of the rows.

    A value answers with the class that it is most frequent in; a category that the other half lacks is never right.
    0 where there are too few rows to know.
    """
    if len(values) < MIN_ROWS or np.bincount(y).min() < _MIN_PER_CLASS:
        return 0.0
    codes = _ranked(values)
    order = np.random.default_rng(0).permutation(len(y))
    learn, count = order[::2], order[1::2]
    known, place = np.unique(codes[learn], return_inverse=True)
    seen = np.zeros((len(known), int(y.max()) + 1))
    np.add.at(seen, (place, y[learn]), 1.0)
    answers = (seen / np.maximum(seen.sum(axis=0), 1)).argmax(axis=1)
    nearest = _nearest(known, codes[count])
    right = answers[nearest] == y[count]
    if values.dtype.kind != "f":
        right &= known[nearest] == codes[count]
    found = [float(right[y[count] == label].mean()) for label in np.unique(y[count])]
    return sum(found) / len(found)


def _ranked(values: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers as they are, missing ones below all; texts as numbers of their own."""
    if values.dtype.kind != "f":
        index = {value: code for code, value in enumerate(dict.fromkeys(values.tolist()))}
        return np.array([index[value] for value in values.tolist()], dtype=np.float64)
    missing = np.isnan(values)
    if missing.all():
        return np.zeros(len(values))
    return np.where(missing, values[~missing].min() - np.ptp(values[~missing]) - 1, values)


def _nearest(known: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each value the position of the nearest in `known`, which is sorted."""
    right = np.clip(np.searchsorted(known, values), 0, len(known) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(known[left] - values) <= np.abs(known[right] - values), left, right)
