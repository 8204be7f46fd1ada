"""What a review means for a delivery: rows that a reviewer dropped leave it, rows that were released are remembered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Decision, Reviewed


@dataclass(frozen=True)
class Kept:
    """Which rows stay: bool[rows] of each part, and the record of it."""

    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    record: Reviewed


def keep(train: Sequence[str], test: Sequence[str], entries: Sequence[Decision]) -> Kept:
    """Drops rows by digest from both parts; released rows are found among the training rows that stay."""
    dropped = {entry.row for entry in entries if entry.decision == "drop"}
    released = {entry.row for entry in entries if entry.decision == "release"}
    stay, stay_out = (np.array([row not in dropped for row in part], dtype=bool) for part in (train, test))
    left = [row for row in train if row not in dropped]
    record = Reviewed(
        decisions=len(entries),
        dropped=int((~stay).sum()),
        dropped_held_out=int((~stay_out).sum()),
        released=tuple(position for position, row in enumerate(left) if row in released),
    )
    return Kept(stay, stay_out, record)
