"""The common part of all drivers of a cluster: the fence, the lease, and the order of their calls.

A driver moves traffic by changing one object, which also carries the lease. What that object means (which part of it is
a weight, when a change is in effect, how a promotion is made) is in the module of the driver.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from holdfast.errors import RolloutError
from holdfast.kubernetes.api import Kube, Resource, edit, wait_until
from holdfast.kubernetes.objects import Json, Operation, annotate, annotations
from holdfast.serving.rollout.cluster.live_answers import LiveAnswers
from holdfast.serving.rollout.cluster.prometheus import Prometheus
from holdfast.serving.rollout.cluster.store import EXPIRES, FENCE, Wall, lapsed, renewed, require_fence, taken_back
from holdfast.serving.rollout.cluster.target import DriverSection, Target
from holdfast.serving.rollout.contract.counters import Reading
from holdfast.serving.rollout.contract.driver import Health, Provider

Notes = Mapping[str, str | None]
"""Annotations to set, or to take away where they are None."""
Edit = tuple[Sequence[Operation], Notes]
"""A change of one object, made by compare-and-set under the fence."""


@dataclass(frozen=True)
class Seen:
    """The state of both arms as the objects of a cluster show it, without counters."""

    weight: int | None = None
    """The candidate's, where the cluster confirms it."""
    champion: bool = True
    candidate: bool = True
    """Whether it is ready."""


@dataclass
class FencedDriver(ABC):
    """Base of the drivers; implements most of `holdfast.serving.rollout.cluster.protocol.ClusterDriver`."""

    kind: ClassVar[str]
    mirrors: ClassVar[bool] = True
    section: ClassVar[type[DriverSection]]

    kube: Kube
    namespace: str
    names: DriverSection
    provider: Provider
    fence: int
    time_to_live: float = 120.0
    settle: float = 10.0
    wall: Wall = field(default=time.time, repr=False)
    _removed: bool = field(default=False, init=False)
    _effective: tuple[int, bool] | None = field(default=None, init=False)
    """The weight and mirror that the cluster confirmed; `observe` shows it when they no longer hold."""

    def __post_init__(self) -> None:
        self.live = LiveAnswers(self.provider)
        self.resource = self.lease_holders(self.namespace)

    @classmethod
    @abstractmethod
    def lease_holders(cls, namespace: str) -> Resource:
        """The kind of object that carries a lease."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the object that carries this rollout's lease."""

    @classmethod
    def of(cls, target: Target, kube: Kube, fence: int, provider: Provider | None, wall: Wall) -> Self:
        """Makes the driver; the store has put the fence on the object that it writes."""
        counters, times = provider or cls.counters(target, kube), (target.time_to_live_seconds, target.settle_seconds)
        return cls(kube, target.namespace, target.section_of(cls.section), counters, fence, *times, wall)

    @classmethod
    def counters(cls, target: Target, kube: Kube) -> Provider:
        """The counters that the target names."""
        return Prometheus(target.metrics)

    @classmethod
    def leased(cls, kube: Kube, namespace: str) -> list[Json]:
        """Lists the objects of the namespace that carry a lease."""
        return [item for item in kube.list(cls.lease_holders(namespace)) if EXPIRES in annotations(item)]

    @classmethod
    def take_back(cls, kube: Kube, found: Json, wall: Wall) -> bool:
        """Takes the candidate out whose lease has ended, by one patch."""
        done: list[bool] = []

        def change(here: Json) -> Sequence[Operation]:
            if not lapsed(here, wall()):
                return ()
            done.append(True)
            operations, notes = cls.way_back(here)
            return [*operations, *annotate(here, {**notes, **taken_back(here, annotations(here)[EXPIRES], wall())})]

        meta = found["metadata"]
        edit(kube, cls.lease_holders(meta["namespace"]), meta["name"], change)
        return bool(done)

    @classmethod
    @abstractmethod
    def way_back(cls, found: Json) -> Edit:
        """The change that takes the candidate out of an object, without a target file."""

    def apply(self, weight: int, shadow: bool) -> None:
        """Puts weight and mirror in effect, and renews the lease; a candidate has one of the two, not both.

        Raises:
            RolloutError: also: the candidate is not ready (only a weight that does not rise is then taken), or the
                object is not what this rollout left.
        """
        if self._removed and (weight or shadow):
            raise RolloutError(f"{self.name}: the candidate was removed; a new rollout is needed to bring it back")
        if weight and shadow:
            raise RolloutError(f"{self.name}: cannot mirror to a candidate that gets live traffic")
        self._move(weight, shadow)

    def observe(self) -> Reading:
        """The provider's counters, with what the cluster's objects show; without that when the API is away."""
        try:
            seen = self._seen()
        except RolloutError:
            return self.live.read()
        counted = self.live.read()
        return replace(
            counted,
            weight=seen.weight,
            candidate_alive=counted.candidate_alive and seen.candidate,
            champion_alive=counted.champion_alive and seen.champion,
        )

    def count_probes(self, answered: Callable[[], int]) -> None:
        """Sets how many answers of the candidate were to probes."""
        self.live.probed = answered

    def health(self) -> Health:
        """Whether the API answers, and which arms are ready."""
        try:
            champion, candidate = self._ready()
        except RolloutError:
            return Health(False, False, False)
        return Health(True, champion, candidate)

    @abstractmethod
    def _change(self, found: Json, weight: int, shadow: bool) -> Edit:
        """The change that gives the object `weight` and `shadow`, and renews the lease."""

    @abstractmethod
    def _differs(self, found: Json, weight: int, shadow: bool) -> str | None:
        """The reason why a change is not in effect yet."""

    @abstractmethod
    def _seen(self) -> Seen:
        """The state that `observe` adds to the counters; takes up the mark of an earlier driver."""

    @abstractmethod
    def _ready(self) -> tuple[bool, bool]:
        """Whether champion and candidate are ready."""

    def _move(self, weight: int, shadow: bool) -> None:
        """Puts weight and mirror on the object, and waits until they are in effect where they are new."""
        self.live.note(self._found() if weight and self.live.mark is None else None, weight)
        self._put(weight, shadow)

    def _put(self, weight: int, shadow: bool) -> None:
        self._edit(lambda found: self._change(found, weight, shadow))
        if self._effective != (weight, shadow):
            self._settle(lambda found: self._differs(found, weight, shadow))
            self._effective = (weight, shadow)

    def _found(self) -> Json:
        """The object that carries the lease, under our fence."""
        found = self.kube.get(self.resource, self.name)
        require_fence(found, self.fence)
        return found

    def _edit(self, change: Callable[[Json], Edit]) -> Json:
        """Changes the object that carries the lease."""
        return self._edit_of(self.resource, self.name, change)

    def _edit_of(self, resource: Resource, name: str, change: Callable[[Json], Edit]) -> Json:
        def fenced(found: Json) -> Sequence[Operation]:
            require_fence(found, self.fence)
            operations, notes = change(found)
            return [*operations, *annotate(found, {**notes, FENCE: str(self.fence)})]

        return edit(self.kube, resource, name, fenced)

    def _settle(self, missing: Callable[[Json], str | None], seconds: float | None = None) -> None:
        """Returns when nothing is missing any more in the object that carries the lease."""
        wait_until(lambda: missing(self._found()), self.settle if seconds is None else seconds, self.name)

    def _lease(self, found: Json) -> str:
        """The end of the lease, renewed."""
        return renewed(found, self.wall(), self.time_to_live)

    def _require_ready(self, missing: str | None) -> None:
        if missing is not None:
            raise RolloutError(f"{self.name}: cannot take more traffic: {missing}")
