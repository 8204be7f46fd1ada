"""What moves traffic. The rollout knows nothing else about Envoy, or later about Seldon."""

from dataclasses import dataclass
from typing import Protocol

from holdfast.serving.rollout.judge.counters import Snapshot


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
    """Who is there."""

    router: bool
    champion: bool
    candidate: bool


class Driver(Protocol):
    """Moves traffic between two arms. Every call is idempotent and returns when the change is in effect."""

    async def apply(self, weight: int, shadow: bool) -> None:
        """Puts `weight` percent of live traffic on the candidate, mirrored to it when `shadow`."""

    async def observe(self) -> Snapshot:
        """Counters as of now; `pairs` and `disagreements` are not the driver's and stay 0."""

    async def remove_candidate(self) -> None:
        """Takes the candidate out: weight 0, no mirror, no route that leads to it."""

    async def health(self) -> Health:
        """Who answers."""
