"""Several watchers of one controller, and a store that notifies them of what it is about to write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.serving.rollout.contract.counters import Observation
from holdfast.serving.rollout.contract.driver import Store, StoredState
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

    def observed(self, rollout: Rollout, seen: Observation) -> None:
        """After every look."""
        for watcher in self.watchers:
            watcher.observed(rollout, seen)

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
    def state(self) -> StoredState | None:
        """The store's."""
        return self.store.state

    def write(self, kind: str, state: StoredState, /, **facts: object) -> None:
        """Writes as the store does; the listeners hear of it first, so that a store that hangs can be seen."""
        if kind != "checkpoint":
            for listener in self.listeners:
                listener.keeps(kind, facts)
        self.store.write(kind, state, **facts)
