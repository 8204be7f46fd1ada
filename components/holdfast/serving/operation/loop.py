"""Looks again and again; at the first proof takes the model back, once, and ends."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from json import dumps
from pathlib import Path
from typing import Literal, Protocol

from pydantic import TypeAdapter, ValidationError

from holdfast.artifacts.folder import read_bounded, replace_file
from holdfast.errors import HoldfastError, InputError
from holdfast.serving.operation.evidence import STRETCH_SECONDS, OperationEvidence, RateWatch
from holdfast.serving.operation.observe import Counters, Pairs, ServedCounts
from holdfast.workload.schema import OperationConfig

BLIND_LOOKS = 10
"""After so many looks without counters a line names it; nothing is taken back for it."""
_MAX_BYTES = 2**20

OperationEnd = Literal["rolled-back", "watched"]


class OperationClock(Protocol):
    """Time, so that tests run a month in a second."""

    def now(self) -> float:
        """Unix seconds."""

    def sleep(self, seconds: float) -> None:
        """Returns after so long."""


@dataclass(frozen=True)
class SignalSources:
    """Where the signals come from; a signal without a source is not seen."""

    counters: Counters | None = None
    probes: Callable[[], tuple[int, int]] | None = None
    """(fooled, answered)."""
    max_attack: float | None = None
    """Largest attack success; None: the gate measured none."""
    proofs: tuple[Callable[[], str | None], ...] = ()
    """Each gives a sentence where something else proves a loss or an extraction; a report's drift is none."""


@dataclass(frozen=True)
class OperationActions:
    """What takes the model back, and who is told."""

    roll_back: Callable[[str], None]
    """Doing it twice changes nothing."""
    say: Callable[[str], None]


def guard(
    model: str,
    plan: OperationConfig,
    sources: SignalSources,
    actions: OperationActions,
    state: Path,
    clock: OperationClock,
    *,
    seconds: float,
) -> OperationEnd:
    """Watches for `seconds` (0: one look); returns how it ended. The evidence is kept in `state`, also over restarts.

    Raises:
        InputError: the state is none.
        HoldfastError: the model could not be taken back; the next start tries again.
    """
    found, before, blind = read_state(state, model, plan, sources, clock.now()), None, 0
    until = clock.now() + seconds
    while True:
        if found.decided is None:
            seen, counts = _look(plan, sources, before, actions)
            blind = blind + 1 if seen is None and sources.counters is not None else 0
            if blind == BLIND_LOOKS:
                actions.say(f"nothing was seen of the model in {BLIND_LOOKS} looks; it stays, and no one watches it")
            before = seen or before
            found = found.at(clock.now()).add(counts)
            found = replace(found, decided=found.proof(plan.alpha) or _proven(sources, actions))
            _write(state, found)
        if found.decided is not None:
            actions.say(f"takes the model back: {found.decided}")
            actions.roll_back(found.decided)
            state.unlink(missing_ok=True)
            return "rolled-back"
        if clock.now() + plan.look_seconds > until:
            return "watched"
        clock.sleep(plan.look_seconds)


def read_state(state: Path, model: str, plan: OperationConfig, sources: SignalSources, now: float) -> OperationEvidence:
    """What an earlier process saw of this very model under the same limits; otherwise no evidence.

    Raises:
        InputError: the file is no such state.
    """
    fresh = OperationEvidence(model, now, _watches(plan, sources))
    if not state.exists():
        return fresh
    try:
        found = TypeAdapter(OperationEvidence).validate_json(read_bounded(state, _MAX_BYTES, "the state of a guard"))
    except ValidationError as error:
        raise InputError(f"{state}: expected the state of a guard, found {error.errors()[0]['msg']}") from None
    same = {name: (one.limit, one.stretches) for name, one in found.watches.items()} == {
        name: (one.limit, one.stretches) for name, one in fresh.watches.items()
    }
    return found if found.model == model and same else fresh


def _watches(plan: OperationConfig, sources: SignalSources) -> dict[str, RateWatch]:
    limits: dict[str, float | None] = {
        "errors": plan.max_errors if sources.counters else None,
        "latency": plan.max_slow if sources.counters else None,
        "attack": sources.max_attack if sources.probes else None,
    }
    stretches = round(plan.days * 86400 / STRETCH_SECONDS)
    wanted = {name: limit for name, limit in limits.items() if name in plan.guarded and limit is not None}
    return {name: RateWatch.of(limit, stretches) for name, limit in wanted.items() if 0 < limit < 1}


def _look(
    plan: OperationConfig, sources: SignalSources, before: ServedCounts | None, actions: OperationActions
) -> tuple[ServedCounts | None, Pairs]:
    """The counters now, and what was added to those before."""
    seen, counts = None, dict[str, tuple[int, int]]()
    try:
        if sources.counters is not None:
            seen = sources.counters.read()
            counts |= seen.since(before)
    except HoldfastError as error:
        actions.say(f"a look without counters: {str(error).splitlines()[0]}")
    if sources.probes is not None and "attack" in plan.guarded:
        counts["attack"] = sources.probes()
    return seen, counts


def _proven(sources: SignalSources, actions: OperationActions) -> str | None:
    for proof in sources.proofs:
        try:
            found = proof()
        except HoldfastError as error:
            actions.say(f"a proof could not be read: {str(error).splitlines()[0]}")
            continue
        if found is not None:
            return found
    return None


def _write(state: Path, found: OperationEvidence) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    replace_file(state, dumps(asdict(found)).encode(), private=True, sync=found.decided is not None)
