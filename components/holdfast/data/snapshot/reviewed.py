"""What a review means for a delivery: rows that a reviewer dropped leave it, rows that were released are remembered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Decision, Review, Reviewed
from holdfast.artifacts.folder import Artifact
from holdfast.data.snapshot.contract import enough_rows
from holdfast.data.snapshot.rows import DeliveredRows
from holdfast.errors import InputError


@dataclass(frozen=True)
class Kept:
    """The rows that stay, bool[rows] of each part, and the record of it."""

    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    record: Reviewed


@dataclass(frozen=True)
class SnapshotParts:
    """The training rows and the held-out rows that a snapshot holds, and what a review left out of them."""

    train: DeliveredRows
    test: DeliveredRows
    review: Reviewed | None


def leave_out(
    train: DeliveredRows, test: DeliveredRows, classes: Sequence[str], review: Artifact[Review] | None
) -> SnapshotParts:
    """Both parts without the rows that the review dropped; without a review as they are.

    Raises:
        InputError: too few rows stay.
    """
    if review is None:
        return SnapshotParts(train, test, None)
    kept = keep(train.digests(classes), test.digests(classes), review.document.entries)
    parts = SnapshotParts(train.take(kept.train), test.take(kept.test), kept.record)
    enough_rows(parts.train.y, classes, f"{review.folder}: rows that the review leaves")
    if len(parts.test.y) == 0:
        raise InputError(f"{review.folder}: expected held-out rows after the review, found none")
    return parts


def keep(train: Iterable[str], test: Iterable[str], entries: Sequence[Decision]) -> Kept:
    """Drops rows by digest from both parts; released rows are found among the training rows that stay."""
    dropped = {entry.row for entry in entries if entry.decision == "drop"}
    released = {entry.row for entry in entries if entry.decision == "release"}
    stay, free = _found(train, dropped, released)
    stay_out, _ = _found(test, dropped, released)
    record = Reviewed(
        decisions=len(entries),
        dropped=int((~stay).sum()),
        dropped_held_out=int((~stay_out).sum()),
        released=tuple(np.flatnonzero(free[stay]).tolist()),
    )
    return Kept(stay, stay_out, record)


def _found(rows: Iterable[str], dropped: set[str], released: set[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows stay, and which are released."""
    pairs = [(row not in dropped, row in released) for row in rows]
    stay, free = np.array(pairs, dtype=bool).reshape(-1, 2).T
    return stay, free
