"""The held-out rows: chosen per class, so that each class has its share in both parts."""

import numpy as np
from numpy.typing import NDArray


def holdout(y: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which rows are held out: per class the rounded `share`, at least one, and at least one stays for training.

    Depends on nothing but the labels `int64[N]`, `share` and `seed`. Every class needs two rows.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        held[rows[:count]] = True
    return held
