"""Several watchers of one controller, and a store that notifies them of what it is about to write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.serving.rollout.contract.counters import Blind, Snapshot
from holdfast.serving.rollout.contract.driver import State, Store
from holdfast.serving.rollout.engine.controller import Watcher
from holdfast.serving.rollout.engine.machine import Rollout


class Listener(Watcher, Protocol):
    """A watcher that also hears what is written. It must not raise."""

    def keeps(self, kind: str, facts: Mapping[str, object]) -> None:
        """Hears of a line before the store writes it: an intent, a retry, an approval; not of checkpoints."""


@dataclass(frozen=True)
class WatcherGroup:
    """Implements `holdfast.serving.rollout.engine.controller.Watcher` for several watchers, in order."""

    watchers: Sequence[Watcher]

    def looked(self, rollout: Rollout, seen: Snapshot | Blind) -> None:
        """After every look."""
        for watcher in self.watchers:
            watcher.looked(rollout, seen)

    def moved(self, before: Rollout, after: Rollout) -> None:
        """After a transition is in effect."""
        for watcher in self.watchers:
            watcher.moved(before, after)

    def paged(self, rollout: Rollout, reason: str) -> None:
        """A person is needed."""
        for watcher in self.watchers:
            watcher.paged(rollout, reason)


@dataclass(frozen=True)
class NotifyingStore:
    """Implements `holdfast.serving.rollout.contract.driver.Store`; notifies the listeners before it writes."""

    store: Store
    listeners: Sequence[Listener]

    @property
    def fence(self) -> int:
        """The store's."""
        return self.store.fence

    @property
    def state(self) -> State | None:
        """The store's."""
        return self.store.state

    def write(self, kind: str, state: State, /, **facts: object) -> None:
        """Writes as the store does; the listeners hear of it first, so that a store that hangs can be seen."""
        if kind != "look":
            for listener in self.listeners:
                listener.keeps(kind, facts)
        self.store.write(kind, state, **facts)
