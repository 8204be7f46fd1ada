"""The state of a rollout in the annotations of the object that it moves, so that any replica can go on with it.

Everything is written by compare-and-set under a fence: a number that only grows. A driver takes the next one when it
starts; from then on every call of the one before it is refused. GitOps tools must not sync `holdfast.dev/*` and the
weights (docs/rollout-on-seldon.md).
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from holdfast.artifacts.cause import Cause
from holdfast.errors import FencedError, RolloutError
from holdfast.kubernetes.api import Kube, Resource, edit
from holdfast.kubernetes.objects import Json, Operation, annotate, annotations, moment, rfc3339
from holdfast.registry.notes import locks
from holdfast.serving.rollout.contract.driver import StoredState
from holdfast.serving.rollout.engine import machine
from holdfast.serving.rollout.engine.machine import TERMINAL

PREFIX = "holdfast.dev/"
STATE = f"{PREFIX}state"
FENCE = f"{PREFIX}fence"
HOLDER = f"{PREFIX}holder"
EXPIRES = f"{PREFIX}expires-at"
HISTORY = f"{PREFIX}history"
ROLLED_BACK = f"{PREFIX}rolled-back"
"""Model -> the decision under which it was rolled back for its own fault."""
RECORDED = f"{PREFIX}recorded"
"""The rollout that ended without a promotion and whose record was written: it may start again."""
SUBJECT = f"{PREFIX}rollout"
ARMS = f"{PREFIX}arms"
"""`STABLE/CANDIDATE`: what a watchdog needs to know, which has no target file."""
CHAMPION = f"{PREFIX}champion"
"""The stable arm as it was before it was given the candidate's model: the way back from a promotion."""

MAX_STATE_BYTES = 128 * 2**10
"""Kubernetes allows 256 KiB for all annotations of an object."""
MAX_HISTORY, MAX_HISTORY_BYTES, MAX_ENTRY_BYTES = 60, 32 * 2**10, 2 * 2**10
MAX_ROLLED_BACK = 50
SKEW_SECONDS = 5.0
"""So far may the clocks of a driver and of the watchdog differ."""

Wall = Callable[[], float]
"""Seconds since 1970; only for what another process compares with its own clock."""


@dataclass(frozen=True)
class Subject:
    """The model that is rolled out, let in by a decision of the gate. With a new decision it is a new rollout."""

    digest: str
    decision: str

    def __str__(self) -> str:
        return f"{self.digest}@{self.decision}"


@dataclass
class AnnotationStore:
    """Implements `holdfast.serving.rollout.contract.driver.Store` on one object."""

    kube: Kube
    resource: Resource
    name: str
    what: Subject
    fence: int
    state: StoredState | None
    """The state that the driver before this one wrote last."""
    wall: Wall = field(default=time.time, repr=False)

    @classmethod
    def open(cls, kube: Kube, resource: Resource, name: str, what: Subject, wall: Wall = time.time) -> Self:
        """Takes the next fence; every driver before is refused from now on.

        The state of an earlier rollout that has ended is forgotten when this is another one, or the same once more.

        Raises:
            RolloutError: the object is not there or cannot be written, its annotations are not valid, another
                rollout is under way, or this very model was rolled back under this very decision.
        """
        holder = secrets.token_hex(8)

        def take(found: Json) -> Sequence[Operation]:
            if annotations(found).get(HOLDER) == holder:
                return ()
            notes: dict[str, str | None] = {FENCE: str(fence_of(found) + 1), HOLDER: holder}
            here = annotations(found)
            if here.get(SUBJECT) != str(what) or here.get(RECORDED) == str(what):
                _require_free(found, what)
                notes |= {SUBJECT: str(what), STATE: None, RECORDED: None}
            return annotate(found, notes)

        found = edit(kube, resource, name, take)
        return cls(kube, resource, name, what, fence_of(found), _read(found, STATE, dict), wall)

    def write(self, kind: str, state: StoredState, /, **facts: object) -> None:
        """Keeps `state`; what is not a `checkpoint` also becomes a line of the history.

        Raises:
            RolloutError: it could not be written.
            FencedError: a newer driver has written meanwhile; nothing was changed.
        """
        text = compact(state)
        if len(text) > MAX_STATE_BYTES:
            raise RolloutError(f"{self.name}: expected a state of at most {MAX_STATE_BYTES} bytes, found {len(text)}")
        line = entry(kind, self.fence, self.wall(), facts)

        def values(found: Json) -> dict[str, str | None]:
            kept: dict[str, str | None] = {STATE: text, FENCE: str(self.fence)}
            if kind != "checkpoint":
                kept[HISTORY] = longer(found, line)
            if state.get("state") == machine.State.ROLLED_BACK and locks("rolled-back", _cause(state), planted=False):
                kept[ROLLED_BACK] = _with_rolled_back(found, self.what)
            return kept

        self._annotate(values)

    def recorded(self) -> None:
        """Notes that the record of an end without a promotion is written: the same rollout may start again.

        Raises:
            RolloutError: it could not be written.
            FencedError: a newer driver has written meanwhile; nothing was changed.
        """
        self._annotate(lambda found: {RECORDED: str(self.what)})

    def history(self) -> list[Json]:
        """The last transitions, oldest first: `t` (RFC 3339), `fence`, `kind` and the facts that came with it."""
        return read_history(self.kube.get(self.resource, self.name))

    def _annotate(self, values: Callable[[Json], Mapping[str, str | None]]) -> None:
        def change(found: Json) -> Sequence[Operation]:
            require_fence(found, self.fence)
            return annotate(found, values(found))

        edit(self.kube, self.resource, self.name, change)


def read_history(found: Json) -> list[Json]:
    """The history on an object.

    Raises:
        RolloutError: it is not valid.
    """
    return _read(found, HISTORY, list) or []


def read_state(found: Json) -> StoredState | None:
    """The state on an object; None when no rollout has written one.

    Raises:
        RolloutError: it is not valid.
    """
    return _read(found, STATE, dict)  # type: ignore[no-any-return]


def champion_of(found: Json) -> Json:
    """The stable arm as it was before a promotion began, if one did.

    Raises:
        RolloutError: it is not valid.
    """
    return _read(found, CHAMPION, dict) or {}


def _require_free(found: Json, what: Subject) -> None:
    """A new rollout begins after the one before has ended, and not with what was rolled back already."""
    name = found["metadata"]["name"]
    earlier = _read(found, STATE, dict)
    if earlier is not None and earlier.get("state") not in TERMINAL:
        other = annotations(found).get(SUBJECT)
        raise RolloutError(f"{name}: another rollout is under way ({other}, {earlier.get('state')}): abort it first")
    if (_read(found, ROLLED_BACK, dict) or {}).get(what.digest) == what.decision:
        raise RolloutError(
            f"{name}: {what.digest} was rolled back under {what.decision!r}: it needs a new decision of the gate"
        )


def _cause(state: StoredState) -> Cause | None:
    """Cause of the end; None where the state has none that is known."""
    judgement = state.get("judgement")
    cause = judgement.get("cause") if isinstance(judgement, Mapping) else None
    return Cause(cause) if cause in list(Cause) else None


def _with_rolled_back(found: Json, what: Subject) -> str:
    """The models rolled back, with one more, newest last."""
    known = {key: value for key, value in (_read(found, ROLLED_BACK, dict) or {}).items() if key != what.digest}
    last = list(known.items())[-(MAX_ROLLED_BACK - 1) :]
    return compact(dict([*last, (what.digest, what.decision)]), keep_order=True)


def fence_of(found: Json) -> int:
    """The fence of an object; 0 when no driver took one."""
    value = annotations(found).get(FENCE, "0")
    if not value.isdecimal():
        raise RolloutError(f"{found['metadata']['name']}: expected a number in {FENCE}, found {value[:40]!r}")
    return int(value)


def require_fence(found: Json, fence: int) -> None:
    """Refuses an object that a newer driver holds.

    Raises:
        FencedError: its fence is higher than `fence`.
    """
    here = fence_of(found)
    if here > fence:
        name = found["metadata"]["name"]
        raise FencedError(f"{name}: another driver has taken over (fence {here}, ours is {fence})")


def entry(kind: str, fence: int, now: float, facts: Mapping[str, object]) -> Json:
    """One line of the history; facts that take too much room are left out."""
    head = {"t": rfc3339(now), "fence": fence, "kind": kind}
    whole = {**head, **{key: value for key, value in facts.items() if key not in head}}
    return whole if len(compact(whole)) <= MAX_ENTRY_BYTES else head


def longer(found: Json, line: Json) -> str:
    """The history with one more line; the oldest go when it grows too long. The same line is not added twice."""
    lines = _read(found, HISTORY, list) or []
    text = compact(line)
    if not lines or compact(lines[-1]) != text:
        lines = [*lines, json.loads(text)]
    lines = lines[-MAX_HISTORY:]
    while len(lines) > 1 and len(compact(lines)) > MAX_HISTORY_BYTES:
        lines = lines[1:]
    return compact(lines)


def renewed(found: Json, now: float, time_to_live: float) -> str:
    """New end of the lease: the time that is there while more than half of it is left."""
    here = annotations(found).get(EXPIRES, "")
    at = moment(here)
    far = at is not None and now + time_to_live / 2 < at <= now + time_to_live + 1
    return here if far else rfc3339(now + time_to_live)


def lapsed(found: Json, now: float) -> bool:
    """Whether the lease on an object has ended; an end that is not a valid time counts as passed, none does not."""
    text = annotations(found).get(EXPIRES)
    at = moment(text) if text is not None else None
    return text is not None and (at is None or now > at + SKEW_SECONDS)


def taken_back(found: Json, at: str, now: float) -> dict[str, str | None]:
    """The notes of a lease that ended `at`: the next fence, a line of the history, no lease and no holder any more."""
    fence = fence_of(found) + 1
    line = entry("expired", fence, now, {"expires_at": at, "reason": "its driver is gone; the watchdog took it out"})
    return {FENCE: str(fence), HISTORY: longer(found, line), EXPIRES: None, HOLDER: None}


def compact(value: object, *, keep_order: bool = False) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), sort_keys=not keep_order, default=str)


def _read(found: Json, key: str, kind: type) -> Any:
    text = annotations(found).get(key)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise RolloutError(f"{found['metadata']['name']}: expected JSON in {key}, found {text[:40]!r}")
    return value
