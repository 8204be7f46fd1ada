"""What became of every rollout, kept as tags of the version in MLflow: one note per rollout, one key per note.

A model that was rolled back for its own fault does not come back under the same decision of the gate: `rolled_back`
finds the note that shows it. A rollback for another cause refuses nothing.
As everything in MLflow, notes are an index and no authority: whoever may write there can take them away.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from holdfast.artifacts.cause import Cause

KEY = "holdfast.rollout."
MAX_VALUE = 4900
"""Characters; MLflow's databases hold 5000."""
_MAX_REASON = 1000

Outcome = Literal["promoted", "rolled-back", "inconclusive", "stopped"]


def _known(value: object) -> object:
    """None for a cause that another version of Holdfast wrote."""
    return value if value in list(Cause) else None


NotedCause = Annotated[Cause | None, BeforeValidator(_known)]
"""None: no cause was noted, or none that is known here; a rollback then counts as the model's own fault."""


@dataclass(frozen=True)
class Note:
    """One rollout that came to its end."""

    version: int
    outcome: Outcome
    reason: str
    began: float
    """Unix seconds, to the millisecond: no two rollouts of a version have the same."""
    ended: float
    champion_before: int | None
    model: str
    """Digest."""
    decision: str
    """Digest of the gate's decision."""
    game_day: str | None = None
    """The fault that was planted on purpose; such a rollback does not count against the model."""
    cause: NotedCause = None

    @property
    def key(self) -> str:
        """The name of its tag."""
        return f"{KEY}{self.began * 1000:.0f}"

    @property
    def value(self) -> str:
        """JSON of at most `MAX_VALUE` characters; the version is the tag's own."""
        kept = {**asdict(self), "reason": self.reason[:_MAX_REASON], "game_day": (self.game_day or "")[:200] or None}
        del kept["version"]
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))[:MAX_VALUE]

    @property
    def counts_against_model(self) -> bool:
        """Whether it was rolled back for its own fault, so that its digest is locked."""
        return locks(self.outcome, self.cause, planted=self.game_day is not None)


def locks(outcome: str, cause: Cause | None, *, planted: bool) -> bool:
    """Whether an end refuses the same bytes under the same decision: a rollback for the model's own fault.

    A rollback without a known cause counts as one; a fault that was planted on purpose does not.
    """
    return outcome == "rolled-back" and not planted and (cause is None or cause is Cause.NONE or cause.locks)


def notes_of(version: int, tags: Mapping[str, str]) -> list[Note]:
    """The notes among a version's tags, oldest first; what is none of ours is left out."""
    found = (_note(version, key, value) for key, value in tags.items() if key.startswith(KEY))
    return sorted((note for note in found if note is not None), key=lambda note: note.began)


def rolled_back(notes: Iterable[Note], model: str, decision: str) -> Note | None:
    """The newest note by which this very model was rolled back, for its own fault, under this very decision."""
    found = [note for note in notes if note.counts_against_model and (note.model, note.decision) == (model, decision)]
    return max(found, key=lambda note: note.ended, default=None)


def parse(text: str | bytes) -> Note:
    """A note that was kept as JSON with its version.

    Raises:
        ValueError: it is not valid.
    """
    return TypeAdapter(Note).validate_json(text)


def as_json(note: Note) -> str:
    """JSON with its version, for `parse`."""
    return json.dumps(asdict(replace(note, reason=note.reason[:_MAX_REASON])))


def _note(version: int, key: str, value: str) -> Note | None:
    try:
        note = TypeAdapter(Note).validate_python({**json.loads(value), "version": version})
    except (ValueError, TypeError, ValidationError, RecursionError):
        return None
    return note if note.key == key else None
