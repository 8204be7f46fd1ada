"""What is counted, at one moment or over a stretch of a rollout. Counts, never rates.

The numbers of a `Reading` grow from the start of the counting. `Counts` are what was added between readings; after a
gap, or where a counter went back, nothing is added: what happened unseen is missing data.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import starmap, zip_longest
from operator import add, sub
from typing import Any, Self, TypeVar

_T = TypeVar("_T")

EQUAL_WEIGHT = 50
"""Up to this weight, in percent, the champion carries at least as much traffic as the candidate."""


class _Counters:
    """Counters that are joined field by field; the shorter of two tuples is filled up with 0."""

    __dataclass_fields__: dict[str, Any]

    def plus(self, more: Self) -> Self:
        """Both together."""
        return _joined(self, more, add)

    def since(self, earlier: Self) -> Self:
        """What was added after `earlier`."""
        return _joined(self, earlier, sub)

    def at_least(self, earlier: Self) -> Self:
        """Each counter, or what it was before where it seems to have fallen."""
        return _joined(self, earlier, max)


@dataclass(frozen=True)
class Arm(_Counters):
    """Answers of one arm, each request counted once per attempt at this arm's server."""

    answered: int = 0
    """Answers and failures together."""
    failed: int = 0
    """5xx, resets, connect failures and timeouts, also when a retry at the other arm hid them from the client."""
    timed: int = 0
    """Answers whose time was taken."""
    within: tuple[int, ...] = ()
    """Of them, how many came within each of the edges of the reading."""
    timed_out: int = 0
    """Of the failures, attempts that had no answer in time: a busy machine does that too, so they are slow answers."""
    refused: int = 0
    """Of the failures, connections that were not made; 0 where unknown."""

    @property
    def wrong(self) -> int:
        """Failures that no load causes: 5xx, resets, refused connections."""
        return max(self.failed - self.timed_out, 0)

    @property
    def unanswered(self) -> int:
        """Failures in which the server sent nothing."""
        return self.timed_out + self.refused

    def over(self, edge: int) -> int:
        """Answers that took longer than edge number `edge`."""
        return self.timed - self.within[edge] if self.within else 0


@dataclass(frozen=True)
class Probes(_Counters):
    """What probes found: the same row was sent to both arms, in addition to the clients' requests."""

    pairs: int = 0
    """Rows that both arms answered."""
    disagreements: int = 0
    """Of them, those with two labels."""
    gained: tuple[int, ...] = ()
    """Per class: pairs in which only the candidate said it."""
    lost: tuple[int, ...] = ()
    """Per class: pairs in which only the champion said it."""
    broken: int = 0
    """Rows that the champion answered and the candidate did not, or not in the promised shape, or with NaN."""
    attacks: int = 0
    """Adversarial rows that the candidate answered."""
    fooled: int = 0
    """Of them, those with a wrong label."""


@dataclass(frozen=True)
class Reading:
    """Everything that the analysis sees, at `at` seconds on a clock that only runs forward."""

    at: float = 0.0
    edges_ms: tuple[float, ...] = ()
    """Upper edges of the latency buckets of both arms."""
    candidate: Arm = Arm()
    champion: Arm = Arm()
    live: int = 0
    """Of the candidate's answers, those to live requests (neither mirrored nor probes)."""
    mirrored: int = 0
    """Of the candidate's answers, those to mirrored requests and probes."""
    routed: int = 0
    """Live requests that the router sent to either arm by weight."""
    chosen: int = 0
    """Of `live`, those that a client sent to the candidate itself, or whose key kept them there; not in `routed`."""
    ejections: int = 0
    probes: Probes = Probes()
    weight: int | None = None
    """The candidate's weight as the router itself reports it; None where it cannot."""
    candidate_alive: bool = True
    champion_alive: bool = True
    balanced: bool = False
    """Whether the champion gets copies of live traffic, so that it is as busy as a candidate with more of it."""
    lag: float = 0.0
    """Longest, in seconds, that this machine kept the controller or the traffic waiting since the last observation."""
    candidate_exit: int | None = None
    """How its process ended, where that is known: the exit code, or minus the number of the signal."""


@dataclass(frozen=True)
class NoData:
    """An observation without counters, or with stale ones or some that cannot be true. Never a success."""

    at: float
    reason: str


Observation = Reading | NoData
"""What one observation of a rollout found."""


def went_back(earlier: Reading, now: Reading) -> str | None:
    """The first counter that is lower than before, as a counter is after its server was started again."""
    for role in ("candidate", "champion"):
        before, after = getattr(earlier, role), getattr(now, role)
        for name in ("answered", "failed", "timed", "timed_out"):
            if getattr(after, name) < getattr(before, name):
                return f"{role}.{name}"
    return next(
        (
            name
            for name in ("live", "mirrored", "routed", "chosen", "ejections")
            if getattr(now, name) < getattr(earlier, name)
        ),
        None,
    )


@dataclass(frozen=True)
class Counts(_Counters):
    """What was added over a stretch of a rollout, summed over its observations."""

    seconds: float = 0.0
    candidate: Arm = Arm()
    champion: Arm = Arm()
    live: int = 0
    mirrored: int = 0
    routed: int = 0
    chosen: int = 0
    ejections: int = 0
    probes: Probes = Probes()
    lag: float = 0.0
    """Longest, in seconds, that this machine kept the controller or the traffic waiting."""

    def plus(self, more: Self) -> Self:
        """Both together; the lag is the longer one."""
        return replace(super().plus(more), lag=max(self.lag, more.lag))


def between(before: Reading, now: Reading) -> Counts:
    """What one observation adds."""
    names = [name for name in Counts.__dataclass_fields__ if name not in ("seconds", "lag")]
    added: dict[str, Any] = {name: _joined(getattr(now, name), getattr(before, name), sub) for name in names}
    return Counts(seconds=max(now.at - before.at, 0.0), lag=now.lag, **added)


def _joined(left: _T, right: Any, of: Callable[[Any, Any], Any]) -> _T:
    if isinstance(left, tuple):
        return type(left)(starmap(of, zip_longest(left, right, fillvalue=0)))
    if isinstance(left, _Counters):
        names = left.__dataclass_fields__
        return type(left)(*(_joined(getattr(left, name), getattr(right, name), of) for name in names))
    joined: _T = of(left, right)
    return joined
