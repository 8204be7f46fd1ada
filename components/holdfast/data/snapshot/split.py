"""The held-out rows: chosen per class, so that each class has its share in both parts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.rows import DeliveredRows
from holdfast.workload.schema import DataConfig


def split(parts: Sequence[DeliveredRows], config: DataConfig) -> tuple[DeliveredRows, DeliveredRows]:
    """The training rows and the held-out rows: as they were delivered, or chosen among those of the only part."""
    train, *held_out = parts
    if held_out:
        return train, held_out[0]
    held = holdout(train.y, config.holdout, config.split_seed)
    return train.take(~held), train.take(held)


def holdout(y: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """The held-out rows as a mask: per class the rounded `share`, at least one, and at least one stays for training.

    Depends on nothing but the labels `int64[N]`, `share` and `seed`. Every class needs two rows.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        held[rows[:count]] = True
    return held
