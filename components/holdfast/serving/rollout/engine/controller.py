"""Carries one rollout out: observes, decides, writes, acts, in this order, and goes on after a crash in between.

The decision is the machine's, the traffic the driver's, the memory the store's. What a store announces may have to be
done again after a crash, so every act is idempotent; what was not announced did not begin. Only the way back does not
wait for the store: a full disk must not keep live traffic on a bad model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial
from itertools import count
from typing import Protocol

from holdfast.artifacts.cause import Cause
from holdfast.errors import FencedError, HoldfastError, RegistryError, RolloutError
from holdfast.serving.rollout.contract.counters import NoData, Observation, Probes, Reading
from holdfast.serving.rollout.contract.driver import Clock, Driver, Store
from holdfast.serving.rollout.engine import machine
from holdfast.serving.rollout.engine.machine import TERMINAL, WATCHED, Plan, Rollout, State
from holdfast.serving.rollout.engine.state import dump, restore

RETRIES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts to take the candidate out; the last one repeats for ever."""
PAGE_AFTER = 3
"""Failed attempts to take the candidate out before a person is paged."""
MIRROR_SECONDS = 30.0
"""How long the registry is asked to take in a promotion before the rest is left to the next run."""
_NOT_READY = {"router": Cause.ROUTER, "champion": Cause.CHAMPION, "candidate": Cause.SERVER}


class Ask(Enum):
    """What a person, or the machine, may ask for."""

    ABORT = auto()
    APPROVE = auto()
    REFUSE = auto()


@dataclass(frozen=True)
class OperatorRequest:
    """What is asked for, and why."""

    ask: Ask
    reason: str


class Watcher(Protocol):
    """What is informed: the live table, metrics, the timeline. It must not raise."""

    def observed(self, rollout: Rollout, seen: Observation) -> None:
        """After every observation."""

    def moved(self, before: Rollout, after: Rollout) -> None:
        """After a transition is in effect."""

    def paged(self, rollout: Rollout, reason: str) -> None:
        """A person is needed: the candidate cannot be taken out, or the champion is gone."""


@dataclass(frozen=True)
class Pace:
    """Seconds. Defaults are those of one machine; a cluster is observed, and written to, less often."""

    interval: float = 0.25
    """Between two observations."""
    checkpoint: float = 1.0
    gap: float = 3.0
    """An observation so much later than due means that this process was paused, and a weight that was applied so long
    ago may have been taken back meanwhile: missing data."""
    pending: float = 300.0
    """How long both servers may take to be ready."""
    promoting: float = 60.0
    """How long the last act may take before it is taken back."""
    aftermath: float = 0.75
    """How long to observe on after a terminal state, so that the record shows it."""


@dataclass
class Controller:
    """One rollout being carried out by this process."""

    plan: Plan
    driver: Driver
    store: Store
    clock: Clock
    watcher: Watcher
    requests: Callable[[], OperatorRequest | None] = lambda: None
    """What people ask for, each request once; called at every observation."""
    probes: Callable[[], Probes] = Probes
    traffic_lag: Callable[[], float] | None = None
    """Longest, in seconds, that this machine kept the traffic waiting of late; None: the servers run elsewhere, so the
    stalls of this machine are not theirs."""
    mirror: Callable[[], None] = lambda: None
    """Writes a promotion to the registry; idempotent. Raises RegistryError."""
    pace: Pace = Pace()
    mirrored: bool = field(default=False, init=False)
    _written: float = field(default=float("-inf"), init=False)
    _applied: float | None = field(default=None, init=False)
    """When the driver was last known to have what is wanted."""
    _counted: float = field(default=float("-inf"), init=False)
    """The moment of the newest counters, on the driver's clock."""
    _ahead: float = field(default=float("inf"), init=False)
    """At most so far the driver's clock is ahead of this one."""
    _lag: float = field(default=0.0, init=False)
    """How much later than asked this process was woken for its last observation, in seconds."""
    _paged: set[str] = field(default_factory=set, init=False)

    def run(self) -> Rollout:
        """From the state that the store holds to a terminal state.

        Raises:
            FencedError: another driver has taken over; nothing was touched since.
            RegistryError: the candidate is promoted, and the registry could not be written; run again to do so.
            RolloutError: the store's state belongs to another rollout.
        """
        rollout = self._begin()
        while rollout.state not in TERMINAL:
            rollout = self._round(rollout)
        if rollout.state is State.PROMOTED:
            self._mirror(rollout)
        self._aftermath(rollout)
        return rollout

    def _begin(self) -> Rollout:
        earlier = self.store.state
        if earlier is None:
            return machine.begin(self.plan)
        rollout = machine.resume(restore(earlier, self.plan))
        self._try_keep("resume", rollout, reason="another driver goes on from here")
        return rollout

    def _round(self, rollout: Rollout) -> Rollout:
        asked = self._asked(rollout)
        if asked.state is not rollout.state:
            return self._move(rollout, asked)
        if asked.state is State.PENDING:
            return self._pending(asked)
        if asked.state is State.PROMOTING:
            return self._promoting(asked)
        if asked.state is State.ROLLING_BACK:
            self._take_out(asked)
            return self._settle(asked)
        return self._watched(asked)

    def _asked(self, rollout: Rollout) -> Rollout:
        request = self.requests()
        if request is None:
            return rollout
        if request.ask is Ask.ABORT:
            return machine.abort(rollout, request.reason)
        if request.ask is Ask.REFUSE:
            return machine.refuse(rollout, request.reason)
        approved = machine.approve(rollout)
        self._keep("approved", approved, reason=request.reason)
        return approved

    def _pending(self, rollout: Rollout) -> Rollout:
        health = self.driver.health()
        if health.router and health.champion and health.candidate:
            return self._move(rollout, machine.start(rollout))
        rollout = self._waited(rollout)
        if rollout.seconds >= self.pace.pending:
            missing = [name for name in ("router", "champion", "candidate") if not getattr(health, name)]
            reason = f"not ready within {self.pace.pending:g} s: {', '.join(missing)}"
            return self._move(rollout, machine.abort(rollout, reason, _NOT_READY[missing[0]]))
        self.clock.sleep(self.pace.interval)
        return rollout

    def _waited(self, rollout: Rollout) -> Rollout:
        """With the time that has passed since the last observation."""
        now = self.clock.now()
        passed = 0.0 if rollout.at is None else max(now - rollout.at, 0.0)
        return replace(rollout, at=now, seconds=rollout.seconds + passed)

    def _watched(self, rollout: Rollout) -> Rollout:
        due = self.clock.now() + self.pace.interval
        self.clock.sleep(self.pace.interval)
        self._lag = max(self.clock.now() - due, 0.0)
        if self._lag > self.pace.gap:
            rollout = machine.resume(rollout)
        rollout, seen = self._see(rollout)
        if isinstance(seen, Reading) and not seen.champion_alive:
            self._page(rollout, "the champion's server is gone")
        after = machine.observe(rollout, seen)
        self.watcher.observed(after if after.state is rollout.state else replace(after, state=rollout.state), seen)
        if (after.state, after.step) != (rollout.state, rollout.step):
            return self._move(rollout, after)
        self._checkpoint(after)
        return after

    def _see(self, rollout: Rollout) -> tuple[Rollout, Observation]:
        """Applies what is wanted, which renews the lease, then observes."""
        wanted = machine.desired(rollout)
        try:
            self.driver.apply(wanted.weight, wanted.shadow)
            rollout = self._renewed(rollout)
            return rollout, self._count()
        except RolloutError as error:
            return rollout, NoData(self.clock.now(), str(error))

    def _renewed(self, rollout: Rollout) -> Rollout:
        """Without what the counters were before, where the weight may have been another one since."""
        before, self._applied = self._applied, self.clock.now()
        late = before is None or self._applied > before + self.pace.gap
        return replace(rollout, last=None) if late else rollout

    def _count(self) -> Reading:
        """The counters as of now, on this driver's clock; those of an earlier moment, or of one to come, are none."""
        asked = self.clock.now()
        seen = self.driver.observe()
        now = self.clock.now()
        if seen.at <= self._counted:
            raise RolloutError(f"expected newer counters than those of second {self._counted:.3f}, found no newer ones")
        if seen.at - now > self._ahead + self.pace.gap:
            raise RolloutError(f"expected counters as of now, found some {seen.at - now - self._ahead:.0f} s ahead")
        self._counted, self._ahead = seen.at, min(self._ahead, seen.at - asked)
        probes = self.probes()
        lag = 0.0 if self.traffic_lag is None else max(self._lag, self.traffic_lag())
        return replace(seen, at=now, probes=probes, lag=lag)

    def _move(self, before: Rollout, after: Rollout) -> Rollout:
        """Announces a transition, carries it out, and notes that it is in effect."""
        try:
            self._keep("intent", after, before=before.name, after=after.name, reason=after.judgement.reason)
        except RolloutError as error:
            if after.state is not State.ROLLING_BACK:
                return self._cannot_write(before, str(error))
        if after.state is State.ROLLING_BACK:
            self._take_out(after)
            return self._settle(after, before=before)
        return self._forward(before, after)

    def _forward(self, before: Rollout, after: Rollout) -> Rollout:
        """Every step applies its weight again at every observation, so a failure here is only one without data."""
        wanted = machine.desired(after)
        try:
            self.driver.apply(wanted.weight, wanted.shadow)
        except RolloutError as error:
            self._applied = None
            self.watcher.observed(after, NoData(self.clock.now(), str(error)))
        else:
            self._applied = self.clock.now()
            self._try_keep("done", after, state=after.name)
        self.watcher.moved(before, after)
        return self._from_here(after)

    def _from_here(self, rollout: Rollout) -> Rollout:
        """Counts from now on: what is under way was sent by the step before."""
        try:
            seen = self._count()
        except RolloutError:
            return machine.resume(rollout)
        return replace(rollout, last=seen, at=seen.at)

    def _cannot_write(self, rollout: Rollout, reason: str) -> Rollout:
        """A step that cannot be announced does not begin; after some time without, the candidate goes out."""
        self.clock.sleep(self.pace.interval)
        if rollout.state not in WATCHED:
            waiting = self._waited(rollout)
            late = waiting.seconds >= self.plan.max_blind_seconds
            return self._move(waiting, machine.abort(waiting, reason, Cause.HOST)) if late else waiting
        nothing = NoData(self.clock.now(), reason)
        after = machine.observe(rollout, nothing)
        self.watcher.observed(after, nothing)
        return self._move(rollout, after) if after.state is State.ROLLING_BACK else after

    def _promoting(self, rollout: Rollout) -> Rollout:
        rollout = self._waited(rollout)
        try:
            self.driver.apply(100, shadow=False)
            self.driver.promote()
        except RolloutError as error:
            if rollout.seconds >= self.pace.promoting:
                late = f"the promotion did not come into effect within {self.pace.promoting:g} s: {error}"
                return self._move(rollout, machine.abort(rollout, late, Cause.ROUTER))
            self.watcher.observed(rollout, NoData(self.clock.now(), str(error)))
            self.clock.sleep(self.pace.interval)
            return rollout
        return self._settle(rollout)

    def _settle(self, rollout: Rollout, before: Rollout | None = None) -> Rollout:
        """Into the terminal state, which is kept before it is announced."""
        if before is not None:
            self.watcher.moved(before, rollout)
        done = machine.confirm(rollout)
        self._keep_for_ever("done", done)
        self.watcher.moved(rollout, done)
        return done

    def _take_out(self, rollout: Rollout) -> None:
        """Takes the candidate out, however long it takes: giving up would leave live traffic on a bad model."""

        def failed(attempt: int, error: HoldfastError) -> None:
            if attempt >= PAGE_AFTER:
                self._page(rollout, f"the candidate cannot be taken out: {error}")
            self._try_keep("retry", rollout, attempt=attempt, reason=str(error))

        self._until_done(self.driver.remove_candidate, RolloutError, failed)

    def _until_done(
        self, act: Callable[[], None], passing: type[HoldfastError], failed: Callable[[int, HoldfastError], None]
    ) -> None:
        """Tries `act` until it succeeds, with longer and longer pauses; `failed` gets every error that may pass."""
        for attempt in count(1):
            try:
                act()
            except passing as error:
                failed(attempt, error)
            else:
                return
            self.clock.sleep(RETRIES[min(attempt, len(RETRIES)) - 1])

    def _page(self, rollout: Rollout, reason: str) -> None:
        """Once for each kind of trouble."""
        kind = reason.partition(":")[0]
        if kind not in self._paged:
            self._paged.add(kind)
            self.watcher.paged(rollout, reason)

    def _mirror(self, rollout: Rollout) -> None:
        began = self.clock.now()

        def failed(attempt: int, error: HoldfastError) -> None:
            if self.clock.now() - began >= MIRROR_SECONDS:
                raise error
            self._try_keep("retry", rollout, attempt=attempt, reason=str(error))

        self._until_done(self.mirror, RegistryError, failed)
        self.mirrored = True
        self._try_keep("mirrored", rollout)

    def _aftermath(self, rollout: Rollout) -> None:
        """Observes on for a moment, so that the record shows the state that was reached."""
        until = self.clock.now() + self.pace.aftermath
        while self.clock.now() < until:
            self.clock.sleep(self.pace.interval)
            try:
                seen = self._count()
            except (RolloutError, FencedError):
                continue
            rollout = machine.count(rollout, seen)
            self.watcher.observed(rollout, seen)

    def _checkpoint(self, rollout: Rollout) -> None:
        if self.clock.now() - self._written >= self.pace.checkpoint:
            self._try_keep("checkpoint", rollout)

    def _keep(self, kind: str, rollout: Rollout, **facts: object) -> None:
        self.store.write(kind, dump(rollout), **facts)
        self._written = self.clock.now()

    def _try_keep(self, kind: str, rollout: Rollout, **facts: object) -> None:
        """As `_keep`, where nothing hangs on it: a checkpoint, or what the next run would do again anyway."""
        try:
            self._keep(kind, rollout, **facts)
        except RolloutError as error:
            self.watcher.observed(rollout, NoData(self.clock.now(), str(error)))

    def _keep_for_ever(self, kind: str, rollout: Rollout) -> None:
        """A verdict is kept, however long it takes; the traffic already is where it should be."""

        def failed(attempt: int, error: HoldfastError) -> None:
            if attempt >= PAGE_AFTER:
                self._page(rollout, f"the verdict cannot be written: {error}")

        keep = partial(self._keep, kind, rollout, state=rollout.name, reason=rollout.judgement.reason)
        self._until_done(keep, RolloutError, failed)
