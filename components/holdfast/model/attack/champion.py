"""A champion of another contract than the candidate: the same held-out rows, as the champion's own input has them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdfast.artifacts.contract import other_kinds, unread
from holdfast.artifacts.documents import InputSpec, Model, Snapshot, ThreatModel
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError, WorkloadError
from holdfast.model.inputs import Arrays, read_split, spec_of
from holdfast.wording import quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from holdfast.modality.ball import Ball


@dataclass(frozen=True)
class OwnInput:
    """Rows as the champion reads them, with its numbers for their classes, and what an attacker may do to them."""

    rows: Arrays
    ball: "Ball | None"
    """None: the threat model cannot be carried over."""
    not_attacked: str | None = None
    """Why not."""


def read_as(
    champion: Model, data: Artifact[Snapshot], index: "NDArray[np.int64]", threat: ThreatModel, device: str
) -> OwnInput:
    """The held-out rows at `index` for a champion, and the candidate's threat model around them.

    Raises:
        InputError: the champion cannot read them, or answers other classes; the message is a clause about the champion.
    """
    rows = _rows(champion, data).take(index)
    try:
        return OwnInput(rows, _ball(champion.input, data, threat, device))
    except WorkloadError as error:
        return OwnInput(rows, None, str(error))


def _rows(champion: Model, data: Artifact[Snapshot]) -> Arrays:
    classes = data.document.classes
    if sorted(classes) != sorted(champion.classes):
        raise InputError(f"answers {quoted(champion.classes)}, while this delivery has {quoted(classes)}")
    gone = unread(champion.input, data.document.columns)
    if gone:
        raise InputError(f"reads {quoted(gone)}, which this delivery does not have")
    try:
        rows = read_split(data, "test", champion.input)
    except InputError as error:
        raise InputError(f"cannot read these rows ({error})") from None
    numbers = np.array([champion.classes.index(name) for name in classes], dtype=np.int64)
    return Arrays(rows.x, numbers[rows.y])


def _ball(theirs: InputSpec, data: Artifact[Snapshot], threat: ThreatModel, device: str) -> "Ball":
    """The candidate's perturbation set on the columns that the champion reads, scaled by the same training rows.

    Raises:
        WorkloadError: a change of the same size is another one for the champion.
    """
    from holdfast.modality.ball import Ball

    other = [how for _, how in other_kinds(theirs, data.document.columns)]
    if other:
        raise WorkloadError(f"{'; '.join(other)}, so that the same attack is not possible")
    spec = spec_of(data, theirs.columns)
    if (spec.raw_lower, spec.raw_upper) != (theirs.raw_lower, theirs.raw_upper):
        raise WorkloadError("delivered values have another range for the champion, so epsilon is another change")
    known = {column.name for column in theirs.columns}
    rules = tuple(rule for rule in threat.features if rule.name in known)
    return Ball.of(threat.model_copy(update={"features": rules}), spec, device)
