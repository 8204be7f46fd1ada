"""A world in virtual time: traffic, two arms, a router with leases, a store; all of it can fail.

The controller under test is the real one. The world keeps two books: counters as a driver may see them (they can be
refused, stale, reset), and the truth, which nothing but the world writes and which the checks of `checks.py` read.
Every call of a driver or a store is an act with a number; a `Kill` ends the driver before or after one of them.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from statistics import NormalDist

import numpy as np

from holdfast.errors import FencedError, RegistryError, RolloutError
from holdfast.serving.rollout.contract.counters import Arm, Observation, Probes, Reading
from holdfast.serving.rollout.contract.driver import Health, StoredState
from holdfast.serving.rollout.engine.controller import Controller, OperatorRequest, Pace
from holdfast.serving.rollout.engine.machine import Plan, Rollout, State

TICK = 0.05
EDGES_MS = (2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 10_000.0)
SPREAD = 0.35
"""Standard deviation of the logarithm of answer times."""
CLASSES = 10
EJECTED_AFTER, EJECTED_SECONDS = 3, 30.0
"""Failures in a row, as Envoy is told."""


class Killed(BaseException):
    """The driver's process is gone, at once; no code may catch this."""


class StuckError(BaseException):
    """A driver was still at it when the world ended."""


@dataclass(frozen=True)
class Behaviour:
    """An arm at one moment."""

    errors: float = 0.0
    median_ms: float = 8.0
    broken: float = 0.0
    """Share of answers with status 200 and another shape."""
    wrong: float = 0.02
    """Share of paired answers with another label than the champion's."""
    alive: bool = True
    ready: bool = True
    """Gets traffic; one that is alive and not ready is being moved to another node."""


Behaves = Callable[[float], Behaviour]
"""From seconds since the arm first got live requests (before that: below 0)."""


@dataclass(frozen=True)
class Kill:
    """The driver dies before or after its act number `number`, counted over all drivers of the world."""

    number: int
    after: bool


@dataclass
class Truth:
    """What really was answered."""

    clients: int = 0
    lost: int = 0
    """Client requests without a whole answer from either arm although the champion was well."""
    candidate: list[int] = field(default_factory=lambda: [0, 0])
    """Answered, failed."""
    champion: list[int] = field(default_factory=lambda: [0, 0])
    own: dict[int, int] = field(default_factory=dict)
    """Weight of live traffic -> the candidate's live answers at it; 0: mirrored ones and probes."""
    ejections: int = 0
    seen: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """Candidate answered and failed, champion answered and failed, between two readings of the counters by one driver
    in one step: what a driver can know."""
    died: bool = False
    """The candidate was dead at some moment at which it could be seen."""
    moved: list[str] = field(default_factory=list)
    """Who the registry's champion became, one entry per change."""


@dataclass
class Router:
    """Where live requests go, and its watchdog."""

    ttl: float
    weight: int = 0
    shadow: bool = False
    candidate: bool = True
    kept: bool = False
    replicas: int = 0
    """Of the champion's servers, those that run the candidate's bytes."""
    expires: float = math.inf
    fence: int = 0
    fired: int = 0

    @property
    def exposed(self) -> bool:
        """Whether the candidate gets anything that is not a probe."""
        return bool(self.weight or self.shadow)


@dataclass
class Act:
    """One call of a driver or a store."""

    number: int
    at: float
    fence: int
    what: str
    about: str = ""
    done: bool = False
    """Whether it took effect."""
    lost: bool = False
    """It took effect, and the caller does not know."""


@dataclass
class Trouble:
    """What goes wrong with calls; a fault overrides what it needs."""

    def before(self, world: "World", act: Act) -> None:
        """May raise RolloutError or let time pass: the call has no effect."""

    def after(self, world: "World", act: Act) -> None:
        """May raise RolloutError: the call had its effect, and its caller does not know."""

    def seen(self, world: "World", snapshot: Reading) -> Reading:
        """What the metrics say."""
        return snapshot


@dataclass
class Line:
    """What a store kept."""

    at: float
    fence: int
    kind: str
    state: str


@dataclass
class World:
    """Everything but the driver."""

    plan: Plan
    seed: int
    candidate: Behaves = lambda _: Behaviour()
    champion: Behaves = lambda _: Behaviour()
    """From seconds since the world began."""
    rate: float = 200.0
    ttl: float = 3.0
    trouble: Trouble = field(default_factory=Trouble)
    kill: Kill | None = None
    call_seconds: float = 0.004
    """How long a call takes."""
    outlier: bool = True
    """Whether the router ejects a candidate after failures in a row."""
    replicas: int = 1
    horizon: float = 1200.0
    pace: Pace = Pace()

    def __post_init__(self) -> None:
        self.now = 0.0
        self.chance = np.random.default_rng([self.seed, 0])
        self.router, self.truth, self.proof = Router(self.ttl), Truth(), Truth()
        self.acts: list[Act] = []
        self.lines: list[Line] = []
        self.kept: StoredState | None = None
        self.store_fence = 0
        self.fences = 0
        self.counters = Reading(edges_ms=EDGES_MS, balanced=True)
        self.probes = Probes(gained=(0,) * CLASSES, lost=(0,) * CLASSES)
        self.first_live: float | None = None
        self.streak, self.ejected_until = 0, -math.inf
        self.read: tuple[float, list[int]] | None = None
        self.living: set[int] = set()
        self.alone_since = 0.0
        self.exposed_alone = 0.0
        """Longest time that the candidate got traffic with no driver alive."""
        self.mixed_alone = 0.0
        self.paged: list[str] = []
        self.looks = 0
        self.decided: float | None = None
        self.zero: float | None = None
        self.violations: list[str] = []
        self.requests: list[tuple[float, OperatorRequest]] = []
        self.granted: list[OperatorRequest] = []
        self.events: list[tuple[float, Callable[[World], None]]] = []
        self.moves: list[tuple[str, str]] = []

    # --- time ---------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Lets time pass: traffic flows, the watchdog watches."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            step = min(TICK, until - self.now)
            self.now += step
            while self.events and self.events[0][0] <= self.now:
                self.events.pop(0)[1](self)
            self._traffic(step)
            self._watchdog()
        if self.now > self.horizon:
            raise StuckError

    def at(self, when: float, what: Callable[["World"], None]) -> None:
        """Something happens at a moment."""
        self.events.append((when, what))
        self.events.sort(key=lambda event: event[0])

    def _watchdog(self) -> None:
        router = self.router
        if router.exposed and not router.kept and self.now > router.expires:
            router.weight, router.shadow, router.replicas = 0, False, 0
            router.fired += 1
            self._zeroed()
        if not self.living:
            alone = self.now - self.alone_since
            if router.exposed and not router.kept:
                self.exposed_alone = max(self.exposed_alone, alone)
            if 0 < router.replicas < self.replicas:
                self.mixed_alone = max(self.mixed_alone, alone)

    def _zeroed(self) -> None:
        if self.decided is not None and self.zero is None:
            self.zero = self.now

    # --- traffic ------------------------------------------------------------------------------------------------------

    def behaviour(self) -> Behaviour:
        """The candidate now."""
        return self.candidate(-1.0 if self.first_live is None else self.now - self.first_live)

    def _traffic(self, seconds: float) -> None:
        router, chance = self.router, self.chance
        n = int(chance.poisson(self.rate * seconds))
        candidate, champion = self.behaviour(), self.champion(self.now)
        live = int(chance.binomial(n, router.weight / 100)) if candidate.ready else 0
        copies = n if router.shadow and candidate.ready else 0
        if router.weight and self.first_live is None:
            self.first_live = self.now
        failed = self._candidate_answers(live, copies, candidate)
        retried = int(chance.binomial(failed, champion.errors)) if champion.alive else failed
        lost = self._champion_answers(n - live, failed, champion) + retried
        self.truth.clients += n
        if champion.alive and not champion.errors:
            self.truth.lost += lost
        self.counters = replace(self.counters, routed=self.counters.routed + n)
        self._probe(seconds, candidate, champion)
        if not candidate.alive and self.living:
            self.truth.died = True

    def _candidate_answers(self, live: int, copies: int, now: Behaviour) -> int:
        """Returns how many live requests it failed."""
        share = now.errors if now.alive and self.now >= self.ejected_until else 1.0
        failed = int(self.chance.binomial(live, share))
        failed_copies = int(self.chance.binomial(copies, share))
        self._eject(live + copies, failed + failed_copies)
        seen = self.counters
        self.counters = replace(
            seen,
            candidate=self._answered(seen.candidate, live + copies, failed + failed_copies, now),
            live=seen.live + live,
            mirrored=seen.mirrored + copies,
        )
        self._book(self.truth.candidate, live + copies, failed + failed_copies)
        weight = self.router.weight
        if live:
            self.truth.own[weight] = self.truth.own.get(weight, 0) + live
        self.truth.own[0] = self.truth.own.get(0, 0) + copies
        return failed

    def _champion_answers(self, live: int, retried: int, now: Behaviour) -> int:
        """Returns how many live requests of its own it failed twice."""
        share = now.errors if now.alive else 1.0
        failed = int(self.chance.binomial(live + retried, share))
        again = int(self.chance.binomial(failed, share))
        seen = self.counters
        self.counters = replace(seen, champion=self._answered(seen.champion, live + retried, failed, now))
        self._book(self.truth.champion, live + retried, failed)
        return again

    def _answered(self, arm: Arm, answered: int, failed: int, now: Behaviour) -> Arm:
        timed = answered if now.alive else 0
        counts = np.cumsum(self.chance.multinomial(timed, _buckets(now.median_ms)))[:-1] if timed else None
        within = arm.within or (0,) * len(EDGES_MS)
        if counts is not None:
            within = tuple(a + int(b) for a, b in zip(within, counts, strict=True))
        return Arm(arm.answered + answered, arm.failed + failed, arm.timed + timed, within)

    def _book(self, book: list[int], answered: int, failed: int) -> None:
        book[0] += answered
        book[1] += failed

    def _eject(self, answered: int, failed: int) -> None:
        """After failures in a row; within one tick the order of answers is by chance."""
        if not self.outlier or self.now < self.ejected_until or not answered:
            return
        order = self.chance.permutation(answered) < failed
        for bad in order.tolist():
            self.streak = self.streak + 1 if bad else 0
            if self.streak >= EJECTED_AFTER:
                self.streak, self.ejected_until = 0, self.now + EJECTED_SECONDS
                self.truth.ejections += 1
                self.counters = replace(self.counters, ejections=self.counters.ejections + 1)
                return

    def _probe(self, seconds: float, candidate: Behaviour, champion: Behaviour) -> None:
        if not self.router.candidate or not candidate.ready:
            return
        asked = int(self.chance.poisson(0.1 * self.rate * seconds))
        n = int(self.chance.binomial(asked, 1 - champion.errors)) if champion.alive else 0
        bad = 1 - (1 - candidate.errors) * (1 - candidate.broken) if candidate.alive else 1.0
        broken = int(self.chance.binomial(n, bad))
        pairs = n - broken
        wrong = int(self.chance.binomial(pairs, candidate.wrong))
        classes = self.chance.integers(CLASSES, size=(2, wrong))
        gained, lost = (tuple(np.bincount(row, minlength=CLASSES).tolist()) for row in classes)
        self.probes = self.probes.plus(Probes(pairs, wrong, gained, lost, broken))
        failed = int(self.chance.binomial(asked, candidate.errors)) if candidate.alive else asked
        seen = self.counters
        arm = self._answered(seen.candidate, asked, failed, candidate)
        control = self._answered(seen.champion, asked, asked - n, champion)
        self.counters = replace(seen, candidate=arm, champion=control, mirrored=seen.mirrored + asked)
        self._book(self.truth.candidate, asked, failed)
        self._book(self.truth.champion, asked, asked - n)
        self.truth.own[0] = self.truth.own.get(0, 0) + asked

    def reads(self) -> None:
        """The counters were read now."""
        now = [*self.truth.candidate, *self.truth.champion]
        if self.read is not None and self.now - self.read[0] <= self.pace.interval + self.pace.gap:
            self.truth.seen = [a + b - c for a, b, c in zip(self.truth.seen, now, self.read[1], strict=True)]
        self.read = (self.now, now)

    # --- calls --------------------------------------------------------------------------------------------------------

    @contextmanager
    def act(self, fence: int, what: str, about: str = "") -> Iterator[Act]:
        """One call: it may be killed before or after, refused, slow, or its answer lost."""
        act = Act(len(self.acts) + 1, self.now, fence, what, about)
        self.acts.append(act)
        if self.kill == Kill(act.number, after=False):
            raise Killed
        self.advance(self.call_seconds * float(self.chance.uniform(0.5, 2.0)))
        self.trouble.before(self, act)
        yield act
        act.done = act.lost = True
        self.trouble.after(self, act)
        act.lost = False
        if self.kill == Kill(act.number, after=True):
            raise Killed

    def admit(self, fence: int) -> None:
        """The resource hears only the newest driver."""
        if fence < self.router.fence:
            raise FencedError(f"driver {fence} was followed by driver {self.router.fence}")
        self.router.fence = fence

    def controller(self, fence: int, clock: "Time") -> Controller:
        """The real controller in this world."""
        return Controller(
            self.plan,
            WorldDriver(self, fence),
            WorldStore(self, fence),
            clock,
            Eyes(self),
            requests=Asked(self, fence),
            probes=lambda: self.probes,
            mirror=lambda: self._mirror(fence),
            pace=self.pace,
        )

    def next_fence(self) -> int:
        """Of the next driver."""
        self.fences += 1
        return self.fences

    def begins(self, fence: int) -> None:
        """A driver lives."""
        self.living.add(fence)

    def dies(self, fence: int) -> None:
        """A driver does not live any more, or does not run."""
        self.living.discard(fence)
        if not self.living:
            self.alone_since = self.now

    def _mirror(self, fence: int) -> None:
        try:
            with self.act(fence, "mirror"):
                if self.truth.moved[-1:] != ["candidate"]:
                    self.truth.moved.append("candidate")
        except RolloutError as error:
            raise RegistryError(str(error)) from None


@dataclass
class Time:
    """Implements `Clock`."""

    world: World

    def now(self) -> float:
        """Virtual seconds."""
        return self.world.now

    def sleep(self, seconds: float) -> None:
        """The world goes on meanwhile."""
        self.world.advance(seconds)


@dataclass
class WorldDriver:
    """Implements `Driver`."""

    world: World
    fence: int

    def apply(self, weight: int, shadow: bool) -> None:
        """As the protocol has it."""
        with self.world.act(self.fence, "apply", f"{weight}{' shadow' if shadow else ''}"):
            self.world.admit(self.fence)
            router = self.world.router
            if not router.candidate and (weight or shadow):
                raise RolloutError("the candidate was removed")
            router.weight, router.shadow = weight, shadow
            router.expires, router.kept = self.world.now + router.ttl, False
            router.replicas = 0 if not weight else router.replicas

    def observe(self) -> Reading:
        """The counters, or what a fault makes of them."""
        world = self.world
        with world.act(self.fence, "observe"):
            alive = world.behaviour().alive
            world.reads()
            snapshot = replace(
                world.counters,
                at=world.now,
                weight=world.router.weight,
                candidate_alive=alive,
                champion_alive=world.champion(world.now).alive,
            )
            return world.trouble.seen(world, snapshot)

    def remove_candidate(self) -> None:
        """No route leads to it any more."""
        with self.world.act(self.fence, "remove"):
            self.world.admit(self.fence)
            router = self.world.router
            router.weight, router.shadow, router.candidate, router.kept = 0, False, False, False
            router.replicas = 0
            self.world._zeroed()

    def promote(self) -> None:
        """One server after the other."""
        world = self.world
        for number in range(1, world.replicas + 1):
            with world.act(self.fence, "promote", f"{number} of {world.replicas}"):
                world.admit(self.fence)
                if not world.router.candidate:
                    raise RolloutError("the candidate was removed")
                world.router.replicas = max(world.router.replicas, number)
                world.router.weight, world.router.shadow = 100, False
                world.router.kept = world.router.replicas == world.replicas

    def health(self) -> Health:
        """Who is there; never raises."""
        try:
            with self.world.act(self.fence, "health"):
                return Health(True, self.world.champion(self.world.now).alive, self.world.behaviour().alive)
        except RolloutError:
            return Health(False, False, False)


@dataclass
class WorldStore:
    """Implements `Store`: writes are whole or not at all; a newer driver's fence refuses older ones."""

    world: World
    fence: int

    def __post_init__(self) -> None:
        self.world.store_fence = max(self.world.store_fence, self.fence)
        self._found = None if self.world.kept is None else json.loads(json.dumps(self.world.kept))

    @property
    def state(self) -> StoredState | None:
        """What was kept when this driver began."""
        return self._found

    def write(self, kind: str, state: StoredState, /, **facts: object) -> None:
        """Keeps the state."""
        world, name = self.world, str(state["state"])
        if kind == "intent" and name == State.ROLLING_BACK and world.decided is None:
            world.decided = world.now
            world.zero = None if world.router.exposed else world.now
        with world.act(self.fence, "write", f"{kind} {facts.get('after') or facts.get('state') or name}"):
            if self.fence < world.store_fence:
                raise FencedError(f"driver {self.fence} was followed by driver {world.store_fence}")
            world.kept = state
            if kind == "intent" and name == State.PROMOTING:
                world.proof = deepcopy(world.truth)
            world.read = None if kind in ("intent", "resume") else world.read
            world.lines.append(Line(world.now, self.fence, kind, str(facts.get("after") or name)))


@dataclass
class Asked:
    """What people ask, as the files of a rollout's folder do: a request is gone when the next one is asked for."""

    world: World
    fence: int
    _given: OperatorRequest | None = None

    def __call__(self) -> OperatorRequest | None:
        """The next request that is due."""
        world = self.world
        if self._given is not None:
            world.requests = [one for one in world.requests if one[1] is not self._given]
            self._given = None
        due = next((request for when, request in world.requests if when <= world.now), None)
        self._given = due
        if due is not None:
            world.granted.append(due)
        return due


@dataclass
class Eyes:
    """Implements `Watcher`."""

    world: World

    def observed(self, rollout: Rollout, seen: Observation) -> None:
        """Counts."""
        self.world.looks += 1

    def moved(self, before: Rollout, after: Rollout) -> None:
        """Remembers."""
        self.world.moves.append((before.name, after.name))

    def paged(self, rollout: Rollout, reason: str) -> None:
        """Remembers."""
        self.world.paged.append(reason)


@cache
def _buckets(median_ms: float) -> list[float]:
    """Shares of answers in each bucket: lognormal."""
    normal = NormalDist(math.log(median_ms), SPREAD)
    below = [0.0, *(normal.cdf(math.log(edge)) for edge in EDGES_MS), 1.0]
    return [high - low for low, high in zip(below, below[1:], strict=False)]
