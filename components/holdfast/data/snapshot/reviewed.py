"""What a review means for a delivery: dropped rows leave it; released and undecided rows are found again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Decision, Review, Reviewed, Undecided
from holdfast.artifacts.folder import Artifact
from holdfast.data.snapshot.contract import TypedDelivery, enough_rows
from holdfast.data.snapshot.rows import DeliveredRows
from holdfast.errors import InputError


@dataclass(frozen=True)
class Kept:
    """The rows that stay, bool[rows] of each part, and the records of it."""

    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    record: Reviewed
    undecided: Undecided


@dataclass(frozen=True)
class SnapshotParts:
    """The training rows and the held-out rows that a snapshot holds, and what a review left out of them."""

    train: DeliveredRows
    test: DeliveredRows
    review: Reviewed | None
    undecided: Undecided = Undecided()


def leave_out(
    train: DeliveredRows,
    test: DeliveredRows,
    typed: TypedDelivery,
    review: Artifact[Review] | None,
) -> SnapshotParts:
    """Both parts without the rows that the review dropped; without a review as they are.

    Raises:
        InputError: too few rows stay.
    """
    if review is None:
        return SnapshotParts(train, test, None)
    names, names_out = (part.digests(typed.classes, typed.columns) for part in (train, test))
    kept = keep(names, names_out, review.document.entries, review.document.undecided)
    parts = SnapshotParts(train.take(kept.train), test.take(kept.test), kept.record, kept.undecided)
    enough_rows(parts.train.y, typed.classes, f"{review.folder}: rows that the review leaves")
    if len(parts.test.y) == 0:
        raise InputError(f"{review.folder}: expected held-out rows after the review, found none")
    return parts


def keep(train: Iterable[str], test: Iterable[str], entries: Sequence[Decision], undecided: Sequence[str] = ()) -> Kept:
    """Drops rows by digest from both parts; released and undecided rows are found among the training rows that stay."""
    of = dict.fromkeys(undecided, "undecided") | {entry.row: entry.decision for entry in entries}
    decisions, held_out = ([of.get(row) for row in part] for part in (train, test))
    stay, stay_out = (np.array([one != "drop" for one in part], dtype=bool) for part in (decisions, held_out))
    left = [one for one in decisions if one != "drop"]
    record = Reviewed(
        decisions=len(entries),
        dropped=int((~stay).sum()),
        dropped_held_out=int((~stay_out).sum()),
        released=_places(left, "release"),
    )
    open_rows = Undecided(train=_places(left, "undecided"), held_out=held_out.count("undecided"))
    return Kept(stay, stay_out, record, open_rows)


def _places(decisions: Sequence[str | None], wanted: str) -> tuple[int, ...]:
    return tuple(position for position, decision in enumerate(decisions) if decision == wanted)
