"""Takes a promoted version back: the traffic first, then the registry, so that a crash between is seen and repaired."""

from collections.abc import Callable
from dataclasses import dataclass

from holdfast import registry
from holdfast.artifacts.cause import Cause
from holdfast.errors import RefusedError
from holdfast.kubernetes.api import Kube
from holdfast.registry import Version
from holdfast.registry.notes import Note
from holdfast.serving.rollout.cluster.open import open_cluster, prepare
from holdfast.serving.rollout.cluster.target import Target
from holdfast.serving.rollout.contract.counters import Reading


@dataclass(frozen=True)
class InOperation:
    """The champion and what served before it."""

    tracking: str
    name: str
    champion: Version
    previous: Version

    @classmethod
    def of(cls, tracking: str, name: str) -> "InOperation":
        """As the registry has them.

        Raises:
            RefusedError: there is no champion, or nothing to go back to.
            RegistryError: MLflow cannot be reached.
        """
        found = {alias: one for one in registry.versions(tracking, name) for alias in one.aliases}
        if registry.CHAMPION not in found:
            raise RefusedError(f"{name}: expected a champion in the registry, found none: nothing is served")
        if registry.PREVIOUS not in found:
            raise RefusedError(f"{name}: expected a version `previous` to go back to, found none: page a person")
        return cls(tracking, name, found[registry.CHAMPION], found[registry.PREVIOUS])

    @property
    def model(self) -> str:
        """Digest of the champion."""
        return self.champion.tags.get("holdfast.model_digest", "")

    def take_back(self, reason: str, now: float, move: Callable[[Version], None] | None = None) -> None:
        """Has `move` send the traffic to `previous`, then makes it the champion and notes why; twice is once.

        Raises:
            HoldfastError: the traffic could not be moved, and nothing else was done; or MLflow cannot be reached.
        """
        if move is not None:
            move(self.previous)
        self._note(reason, now)
        registry.take_back(self.tracking, self.name, self.champion.number, self.previous.number)

    def _note(self, reason: str, now: float) -> None:
        """By which the same bytes are not rolled out again under the same decision."""
        tags, number = self.champion.tags, self.champion.number
        note = Note(
            version=number,
            outcome="rolled-back",
            reason=f"in operation: {reason}",
            began=now,
            ended=now,
            champion_before=self.previous.number,
            model=self.model,
            decision=tags.get(registry.DECISION, ""),
            cause=Cause.MODEL,
        )
        registry.tag(self.tracking, self.name, number, note.key, note.value)


class _NoCounters:
    """Where nothing is judged any more: the way back needs no Prometheus."""

    def read(self) -> Reading:
        """Nothing was counted."""
        return Reading()


def move_on_cluster(target: Target, kube: Kube, decision: str, seconds: float = 600.0) -> None:
    """Sends all traffic of the target's object to its `candidate`, the version before, and makes it the stable one.

    The driver adds it and waits until it is ready; the object's fence keeps every other driver out.

    Raises:
        RolloutError: a rollout is under way there, which has tests of its own; or it was not ready in time.
    """
    cluster = open_cluster(target, kube, decision, _NoCounters())
    prepare(cluster, seconds)
    cluster.driver.apply(100, shadow=False)
    cluster.driver.promote()
