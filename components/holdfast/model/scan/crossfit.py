"""What models say about rows that they did not see, and about groups of rows that were all held out together.

Ordinary cross-fitting lets a backdoor through: the fold models learn the trigger from the poisoned rows of the other
folds and then agree with every poisoned label. Holding out the *whole* suspicious group asks again without it.
"""

import numpy as np
from numpy.typing import NDArray

from holdfast.model.inputs import Arrays
from holdfast.model.learners import Learner, rows_to_fit

Mask = NDArray[np.bool_]


def assign_folds(y: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """int64[N] in 0..folds-1, every class spread evenly."""
    rng = np.random.default_rng(seed)
    result = np.empty(len(y), dtype=np.int64)
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        result[rows] = (np.arange(len(rows)) + label) % folds
    return result


def out_of_fold(learn: Learner, rows: Arrays, trusted: Mask, *, folds: int, seed: int) -> NDArray[np.float64]:
    """Probabilities float64[N, classes] of every row, by a model fitted to the trusted rows of the other folds."""
    fold = assign_folds(rows.y, folds, seed)
    parts: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    for k in range(folds):
        predict = learn(rows_to_fit(rows, np.flatnonzero(trusted & (fold != k)), seed), seed * folds + k)
        asked = np.flatnonzero(fold == k)
        parts.append((asked, predict(rows.x[asked])))
    result = np.zeros((len(rows), parts[0][1].shape[1]))
    for asked, found in parts:
        result[asked] = found
    return result


def outermost(ranks: NDArray[np.float64], y: NDArray[np.int64], share: float) -> Mask:
    """bool[N]: the `share` of each class with the highest ranks."""
    result = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        result[rows[np.argsort(-ranks[rows], kind="stable")[: int(share * len(rows))]]] = True
    return result


def own(probabilities: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64[N]: the probability of each row's own label."""
    return np.asarray(probabilities[np.arange(len(y)), y])
