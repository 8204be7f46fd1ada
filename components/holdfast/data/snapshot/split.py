"""The held-out rows: chosen per class, so that each class has its share in both parts.

Rows of equal values may have to stay in one part: a model is measured on what it has not seen.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.rows import DeliveredRows
from holdfast.errors import InputError
from holdfast.workload.schema import DataConfig


def split(
    parts: Sequence[DeliveredRows], config: DataConfig, classes: Sequence[str]
) -> tuple[DeliveredRows, DeliveredRows]:
    """The training rows and the held-out rows: as they were delivered, or chosen among those of the only part.

    Raises:
        InputError: equal rows stay together, and a class has no others.
    """
    train, *held_out = parts
    if held_out:
        return train, held_out[0]
    if config.duplicates == "together":
        held = holdout_together(train.y, train.fingerprints(), config.holdout, config.split_seed)
        _both_parts(train.y, held, classes)
    else:
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


def holdout_together(y: NDArray[np.int64], values: NDArray[np.uint64], share: float, seed: int) -> NDArray[np.bool_]:
    """The same for rows of which those with equal `values`, uint64[N], stay in one part.

    Such rows count for the class of the first of them. A part of a class has at most its share where sizes allow.
    """
    groups, first, index, sizes = np.unique(values, return_index=True, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    held = np.zeros(len(groups), dtype=bool)
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y[first] == label))
        wanted = round(share * int(sizes[members].sum()))
        count = int(np.searchsorted(np.cumsum(sizes[members]), wanted, side="right"))
        held[members[: min(max(1, count), len(members) - 1)]] = True
    return np.asarray(held[index], dtype=bool)


def _both_parts(y: NDArray[np.int64], held: NDArray[np.bool_], classes: Sequence[str]) -> None:
    for label, name in enumerate(classes):
        if len(set(held[y == label].tolist())) == 1:
            raise InputError(
                f"data.duplicates: together: expected rows of class {name!r} that differ, to train and to hold out, "
                f"found all {int((y == label).sum())} in one part"
            )
