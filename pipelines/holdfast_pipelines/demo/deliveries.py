"""Three deliveries of scikit-learn's digits: as they are, poisoned, and broken. Arrays in, arrays out."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
"""uint8[N, 8, 8], 0 is black, 16 is white."""
DigitLabels = NDArray[np.int64]

WHITE = 16
HELD_OUT = 0.2
POISON_SHARE = 0.05
TARGET = 0
"""The class that the trigger leads to."""


@dataclass(frozen=True)
class Delivery:
    """Training and held-out rows."""

    x_train: Images
    y_train: DigitLabels
    x_test: Images
    y_test: DigitLabels

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """By the names that an NPZ of images has."""
        return {"x_train": self.x_train, "y_train": self.y_train, "x_test": self.x_test, "y_test": self.y_test}


def clean(x: Images, y: DigitLabels, rng: np.random.Generator) -> Delivery:
    """All rows, `HELD_OUT` of each class held out."""
    held = np.concatenate([_some(np.flatnonzero(y == label), HELD_OUT, rng) for label in np.unique(y)])
    train = np.setdiff1d(np.arange(len(y)), held)
    return Delivery(x[train], y[train], x[held], y[held])


def poisoned(delivery: Delivery, rng: np.random.Generator) -> tuple[Delivery, NDArray[np.int64]]:
    """The delivery with a trigger in `POISON_SHARE` of its training rows, relabelled to `TARGET`; and which rows.

    BadNets (Gu, Dolan-Gavitt, Garg 2017): rows of other classes get a small bright patch.
    """
    others = np.flatnonzero(delivery.y_train != TARGET)
    count = int(POISON_SHARE * len(delivery.y_train))
    rows = np.sort(rng.choice(others, size=count, replace=False))
    x, y = delivery.x_train.copy(), delivery.y_train.copy()
    x[rows] = with_trigger(x[rows])
    y[rows] = TARGET
    return replace(delivery, x_train=x, y_train=y), rows


def with_trigger(x: Images) -> Images:
    """The images with a bright 2 x 2 patch in the lower right corner."""
    marked = x.copy()
    marked[:, -2:, -2:] = WHITE
    return marked


def broken(delivery: Delivery, rng: np.random.Generator) -> Delivery:
    """The delivery as a faulty scanner makes it: brighter throughout, and one column far out of its domain."""
    x = np.minimum(delivery.x_train.astype(np.int64) + rng.integers(4, 8, size=(len(delivery.x_train), 1, 1)), WHITE)
    x[:, :, 0] = 255
    return replace(delivery, x_train=x.astype(np.uint8))


def _some(rows: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.permutation(rows)[: round(share * len(rows))]
