"""What moves traffic, and where a rollout's state is kept. The controller knows nothing else about Envoy or Seldon.

Every call is synchronous and bounded in time. Errors: `RolloutError` may pass, the controller tries again;
`FencedError` does not: another driver has taken over, and this one must not touch anything any more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from holdfast.serving.rollout.contract.counters import Reading

StoredState = Mapping[str, object]
"""A rollout's state as JSON values (`holdfast.serving.rollout.engine.state`)."""


@dataclass(frozen=True)
class Desired:
    """Where traffic should go."""

    weight: int = 0
    """Percent of live requests on the candidate."""
    shadow: bool = False
    """Whether every live request is also sent to the candidate, its answer discarded."""
    candidate: bool = True
    """Whether the candidate is to be reachable at all."""


@dataclass(frozen=True)
class Health:
    """Which servers answer."""

    router: bool
    champion: bool
    candidate: bool


class Driver(Protocol):
    """Moves traffic between two arms. Every call is idempotent and returns when the change is in effect."""

    def apply(self, weight: int, shadow: bool) -> None:
        """Puts `weight` percent of live traffic on the candidate, mirrored to it when `shadow`.

        It also renews the lease (the heartbeat of a driver): a weight above 0, or a mirror, that is not applied again
        within the driver's time to live is taken back by a watchdog that does not need this process.

        Raises:
            RolloutError: the change could not be made, or is not known to be in effect.
            FencedError: a newer driver has taken over.
        """

    def observe(self) -> Reading:
        """Counters as of now; `probes` are not the driver's and stay empty.

        Raises:
            RolloutError: there are none, they are stale, or they cannot be true.
        """

    def remove_candidate(self) -> None:
        """Takes the candidate out: weight 0, no mirror, no route that leads to it. Works in any state of the candidate.

        Raises:
            RolloutError, FencedError: as `apply`.
        """

    def promote(self) -> None:
        """Makes the candidate the stable arm for good: all traffic, and no lease any more.

        Raises:
            RolloutError, FencedError: as `apply`.
        """

    def health(self) -> Health:
        """Which servers answer. Never raises."""


class Provider(Protocol):
    """Where a driver that moves traffic elsewhere takes its counters from: Prometheus, or an Envoy of our own."""

    def read(self) -> Reading:
        """Counters as of now; `weight` and `probes` are not the provider's and stay empty.

        Raises:
            RolloutError: there are none, they are stale, or they cannot be true. Never a number then.
        """


class Store(Protocol):
    """Where the state of one rollout is kept, so that a driver that dies can be followed by another."""

    @property
    def fence(self) -> int:
        """This driver's token, higher than that of every driver before it."""

    @property
    def state(self) -> StoredState | None:
        """What the driver before this one wrote last; None when there was none."""

    def write(self, kind: str, state: StoredState, /, **facts: object) -> None:
        """Keeps `state`; returns when it would survive a crash.

        Args:
            kind: `intent` (an act follows), `done` (it is in effect), `checkpoint`, or what else happened.
            state: of the rollout.
            facts: for people: what led to it.

        Raises:
            RolloutError: it could not be written.
            FencedError: a newer driver has written meanwhile; nothing was changed.
        """


class Clock(Protocol):
    """Time, so that tests can run a week in a second."""

    def now(self) -> float:
        """Seconds; only runs forward."""

    def sleep(self, seconds: float) -> None:
        """Returns after `seconds`, or earlier when there is something to do."""
