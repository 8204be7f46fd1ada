"""The matrix of faults: runs in virtual time against the real controller, each a function of its seed.

`python -m benchmarks.faults --only F7 --run 31` repeats one run and prints which promises did not hold.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np

from holdfast.errors import RolloutError
from holdfast.serving.rollout.contract.counters import Reading
from holdfast.serving.rollout.engine.controller import Ask, OperatorRequest
from holdfast.serving.rollout.engine.machine import TERMINAL, Plan, PlanStep, State
from tests.faults.simulator.checks import Ended, Wanted, carry, examine, one_driver
from tests.faults.simulator.plans import (
    BLAMED,
    CLUSTER,
    LIMITS,
    LONG,
    OUT,
    PLAN,
    UNDECIDED,
    Run,
    bad_candidates,
    failing,
    healthy,
    played,
)
from tests.faults.simulator.together import Entry, together
from tests.faults.simulator.world import Act, Behaviour, Kill, Killed, Trouble, World

# --- F1, F2: the driver dies ------------------------------------------------------------------------------------------


@cache
def acts(seed: int, bad: bool) -> tuple[Act, ...]:
    """The calls of an undisturbed rollout; a kill does not change what came before it."""
    world = _f1_world(seed, bad)
    carry(world)
    return tuple(world.acts)


def _f1_world(seed: int, bad: bool) -> World:
    return World(PLAN, seed, candidate=failing(0.5) if bad else healthy, outlier=seed % 2 == 0)


def side_effects(found: tuple[Act, ...]) -> list[int]:
    """The numbers of the calls that change something: what is written, checkpoints apart, and changes of routes."""
    numbers, weight = [], ""
    for act in found:
        changes = act.what in ("remove", "promote", "mirror") or (act.what == "apply" and act.about != weight)
        weight = act.about if act.what == "apply" else weight
        if changes or (act.what == "write" and not act.about.startswith("checkpoint")):
            numbers.append(act.number)
    return numbers


def f1(seeds: int) -> Iterator[Run]:
    """SIGKILL of the driver before and after every side effect, and at other calls; it comes back some time later."""
    for seed in range(seeds):
        for bad in (False, True):
            found = acts(seed, bad)
            chance = np.random.default_rng([seed, bad])
            others = chance.choice(len(found), size=6, replace=False) + 1
            for number in sorted({*side_effects(found), *others.tolist()}):
                for after in (False, True):
                    yield _killed(seed, bad, Kill(int(number), after))


def _killed(seed: int, bad: bool, kill: Kill) -> Run:
    def play(seed: int) -> Ended:
        world = _f1_world(seed, bad)
        world.kill = kill
        chance = np.random.default_rng([seed, kill.number, kill.after])
        gap = float(chance.choice([0.2, 2.0, 9.0]))
        return played(world, Wanted(OUT if bad else frozenset({State.PROMOTED})), gap)

    kind = "bad" if bad else "healthy"
    return Run(f"{kind}, killed {'after' if kill.after else 'before'} call {kill.number}", seed, play)


def f2(runs: int) -> Iterator[Run]:
    """The driver is gone for ever, in the shadow and at every weight."""
    for seed in range(runs):
        yield Run(f"gone at {('shadow', *(s.weight for s in PLAN.steps))[seed % 5]}", seed, _gone)


def _gone(seed: int) -> Ended:
    world = World(PLAN, seed, ttl=float(np.random.default_rng(seed).choice([2.0, 3.0, 10.0])))
    found = acts_of(World(PLAN, seed))
    wanted = ("0 shadow", *(str(step.weight) for step in PLAN.steps))[seed % 5]
    at = [act.number for act in found if act.what == "apply" and act.about == wanted]
    world.kill = Kill(int(np.random.default_rng(seed).choice(at)), after=True)
    one = one_driver(world)
    world.advance(60.0)
    if one is not None or world.router.exposed:
        world.violations.append(f"60 s after its driver was gone the router had {world.router}")
    if world.router.fired != 1:
        world.violations.append(f"the lease ended {world.router.fired} times")
    return replace(examine(world, None, Wanted()), state="weight 0")


def acts_of(world: World) -> list[Act]:
    """The calls of one undisturbed rollout."""
    carry(world)
    return world.acts


# --- F3: metrics ------------------------------------------------------------------------------------------------------


@dataclass
class Metrics(Trouble):
    """From a moment on the counters cannot be had, or are not what they should be."""

    kind: str
    since: float
    resets: int = 0
    _stale: Reading | None = None
    _base: Reading | None = None

    def before(self, world: World, act: Act) -> None:
        """Refuses, or hangs until the time that a call may take is over."""
        if act.what != "observe" or world.now < self.since:
            return
        if self.kind == "hang":
            world.advance(5.0)
        if self.kind in ("refused", "500", "hang", "NaN"):
            raise RolloutError(f"metrics: {self.kind}")

    def seen(self, world: World, snapshot: Reading) -> Reading:
        """Frozen, empty, from the future, or counted from 0 again."""
        if world.now < self.since:
            return snapshot
        if self.kind == "empty":
            return Reading(at=snapshot.at)
        if self.kind == "stale":
            self._stale = self._stale or snapshot
            return self._stale
        if self.kind == "future":
            return replace(snapshot, at=snapshot.at + 3600.0)
        return self._again(snapshot) if self.kind == "reset" else snapshot

    def _again(self, snapshot: Reading) -> Reading:
        """Counters that began again at 0, ten times, a second apart."""
        if self.resets < 10 and (self._base is None or snapshot.at > self._base.at + 1.0):
            self._base, self.resets = snapshot, self.resets + 1
        base = self._base or Reading()
        return replace(
            snapshot,
            candidate=snapshot.candidate.since(base.candidate),
            champion=snapshot.champion.since(base.champion),
            live=snapshot.live - base.live,
            mirrored=snapshot.mirrored - base.mirrored,
            routed=snapshot.routed - base.routed,
        )


METRICS = ("refused", "500", "hang", "empty", "NaN", "stale", "future", "reset")


def f3(each: int) -> Iterator[Run]:
    """The metrics backend fails in eight ways, each from a moment between the shadow and the last step on."""
    for kind in METRICS:
        for seed in range(each):
            yield Run(kind, seed, partial(_metrics, kind=kind))


def _metrics(seed: int, kind: str) -> Ended:
    since = float(np.random.default_rng(seed).uniform(0.5, 8.0))
    world = World(PLAN, seed, trouble=Metrics(kind, since), call_seconds=0.01)
    # Counters that begin at 0 again can be trusted again after the first look; the others never come back.
    return played(world, Wanted(TERMINAL if kind == "reset" else UNDECIDED))


# --- F4: the API ------------------------------------------------------------------------------------------------------

CALLS = ("write", "apply", "remove", "promote")


@dataclass
class Api(Trouble):
    """Calls that are refused, calls whose answers get lost, and a time without any."""

    seed: int
    refused: float = 0.0
    lost: float = 0.0
    cut: tuple[float, float] = (math.inf, math.inf)
    calls: tuple[str, ...] = (*CALLS, "observe", "health", "mirror")
    stale: tuple[float, float] = (math.inf, math.inf)
    _old: Reading | None = None

    def __post_init__(self) -> None:
        self.chance = np.random.default_rng([self.seed, 4])

    def before(self, world: World, act: Act) -> None:
        """Refuses."""
        if act.what not in self.calls:
            return
        if self.cut[0] <= world.now < self.cut[1]:
            world.advance(1.0)
            raise RolloutError(f"{act.what}: no answer within 1 s")
        if self.chance.random() < self.refused:
            raise RolloutError(f"{act.what}: 500")

    def after(self, world: World, act: Act) -> None:
        """Loses the answer."""
        if act.what in CALLS and self.chance.random() < self.lost:
            raise RolloutError(f"{act.what}: connection reset while waiting for the answer")

    def seen(self, world: World, snapshot: Reading) -> Reading:
        """A watch that was dropped shows the world as it was."""
        if not self.stale[0] <= world.now < self.stale[1]:
            self._old = None
            return snapshot
        self._old = self._old or snapshot
        return self._old


def apis(seed: int) -> dict[str, Api]:
    """Eight ways in which an API server can fail."""
    begin = float(np.random.default_rng(seed).uniform(1.0, 12.0))
    return {
        "409, 30 % of the writes": Api(seed, 0.3, calls=("write",)),
        "429, 30 % of the calls": Api(seed, 0.3),
        "500, 10 %": Api(seed, 0.1),
        "500, 30 %": Api(seed, 0.3),
        "500, 60 %": Api(seed, 0.6),
        "partition of 60 s": Api(seed, cut=(begin, begin + 60.0)),
        "watch dropped for 20 s": Api(seed, stale=(begin, begin + 20.0)),
        "30 % of the answers lost after the change": Api(seed, lost=0.3),
    }


def f4(each: int) -> Iterator[Run]:
    """The Kubernetes API as the store and the driver see it; every other candidate is bad."""
    for kind in apis(0):
        for seed in range(each):
            yield Run(kind, seed, partial(_api, kind=kind, bad=seed % 2 == 1))


def _api(seed: int, kind: str, bad: bool) -> Ended:
    world = World(
        PLAN,
        seed,
        candidate=failing(0.5) if bad else healthy,
        trouble=apis(seed)[kind],
        ttl=30.0,
        call_seconds=0.03,
        outlier=False,
        pace=CLUSTER,
    )
    return played(world, Wanted(OUT if bad else TERMINAL))


def rollbacks(runs: int, refused: float) -> Iterator[Run]:
    """Bad candidates on this machine's pace, a share of the calls refused: how long until weight 0."""
    for seed in range(runs):
        yield Run(f"{refused:.0%} errors", seed, partial(_rollback, refused=refused))


def _rollback(seed: int, refused: float) -> Ended:
    trouble = Api(seed, refused, calls=(*CALLS, "observe"))
    world = World(PLAN, 1000 + seed, candidate=failing(0.5), trouble=trouble, call_seconds=0.03)
    return played(world, Wanted(OUT))


# --- F5: several drivers ----------------------------------------------------------------------------------------------


def f5(runs: int) -> Iterator[Run]:
    """Two or three drivers, overlapping; one is stopped and wakes after another has taken over."""
    for seed in range(runs):
        yield Run(f"{2 + seed % 2} drivers", seed, _several)


def _several(seed: int) -> Ended:
    chance = np.random.default_rng(seed)
    world = World(PLAN, seed, candidate=failing(0.5) if seed % 3 == 0 else healthy, outlier=False)
    # Leases held by clocks that are 120 s apart only decide who begins when; the fence decides who is heard.
    entries = tuple(
        Entry(
            float(chance.uniform(0.0, 20.0) if number else 0.0),
            float(chance.uniform(0.5, 20.0)) if chance.random() < 0.7 else float("inf"),
            float(chance.choice([0.5, 5.0, 40.0])),
        )
        for number in range(2 + seed % 2)
    )
    ended = together(world, entries)
    last = ended[-1] if ended else carry(world)
    if len({str(one.state) for one in ended}) > 1:
        world.violations.append(f"drivers came to different ends: {[str(one.state) for one in ended]}")
    return examine(world, last, Wanted())


# --- F6: low traffic --------------------------------------------------------------------------------------------------


def f6(each: int) -> Iterator[Run]:
    """0, 1, 20 or 499 requests where 500 are wanted."""
    for requests in (0, 1, 20, 499):
        for seed in range(each):
            yield Run(f"{requests} requests", seed, partial(_low, requests=requests))


def _low(seed: int, requests: int) -> Ended:
    plan = Plan(LIMITS, steps=(PlanStep(50, 500, max_seconds=20.0), PlanStep(100, 500, max_seconds=20.0)))
    world = World(plan, seed, rate=requests / 20.0 if requests < 499 else 200.0)
    if requests == 499:
        # Enough at first; the step that needs 500 live answers of the candidate never gets the last one.
        world.at(world.now, lambda w: _stop_at(w, requests))
    return played(world, Wanted(UNDECIDED))


def _stop_at(world: World, requests: int) -> None:
    if sum(n for weight, n in world.truth.own.items() if weight) >= requests - 15:
        world.rate = 0.0
        return
    world.at(world.now + 0.05, lambda w: _stop_at(w, requests))


# --- F7, F8, F9: arms -------------------------------------------------------------------------------------------------


def f7(each: int) -> Iterator[Run]:
    """Nine ways for a candidate to be bad."""
    for kind in bad_candidates():
        for seed in range(each):
            yield Run(kind, seed, partial(_bad, kind=kind))


def _bad(seed: int, kind: str) -> Ended:
    world = World(PLAN, seed, candidate=bad_candidates()[kind], outlier=seed % 2 == 0)
    if kind == "flapping":
        # 1 % on average: only a rollout of thousands of answers can find that.
        world.plan, world.rate = LONG, 1000.0
    return played(world, Wanted(OUT))


def f8(runs: int) -> Iterator[Run]:
    """The champion dies during the canary; every other plan holds the weight, until it is back or aborted."""
    for seed in range(runs):
        yield Run("hold" if seed % 2 else "leave", seed, _champion_dies)


def _champion_dies(seed: int) -> Ended:
    chance = np.random.default_rng(seed)
    dies, back = float(chance.uniform(2.0, 7.0)), float(chance.uniform(15.0, 60.0))
    hold = bool(seed % 2)
    plan = replace(PLAN, limits=replace(LIMITS, hold_without_champion=hold))
    world = World(plan, seed, champion=lambda t: Behaviour(alive=not dies <= t < (back if seed % 4 == 1 else math.inf)))
    if hold and seed % 4 == 3:
        world.requests.append((back, OperatorRequest(Ask.ABORT, "the champion does not come back")))
    return played(world, Wanted(TERMINAL if seed % 4 == 1 else OUT, page=True))


def f9(runs: int) -> Iterator[Run]:
    """An incident hits both arms alike: it is no arm's fault."""
    for seed in range(runs):
        yield Run("shared incident", seed, _incident)


def _incident(seed: int) -> Ended:
    chance = np.random.default_rng(seed)
    begins, lasts = float(chance.uniform(0.5, 8.0)), float(chance.uniform(2.0, 30.0))
    errors, slower = float(chance.choice([0.02, 0.05, 0.1, 0.3])), float(chance.choice([1.0, 3.0, 40.0]))
    world = World(PLAN, seed, outlier=seed % 2 == 0)

    def both(_: float) -> Behaviour:
        on = begins <= world.now < begins + lasts
        return Behaviour(errors=0.005 + errors * on, median_ms=8.0 * (slower if on else 1.0))

    world.candidate = world.champion = both
    return played(world, Wanted(TERMINAL))


# --- F10 to F16 -------------------------------------------------------------------------------------------------------


@dataclass
class Refusing(Trouble):
    """The first so many calls of a kind fail."""

    what: tuple[str, ...]
    left: int
    seconds: float = 0.0

    def before(self, world: World, act: Act) -> None:
        """Refuses."""
        if act.what in self.what and self.left:
            self.left -= 1
            world.advance(self.seconds)
            raise RolloutError(f"{act.what}: refused")


def f10(runs: int) -> Iterator[Run]:
    """Taking the candidate out fails 1 to 50 times."""
    for seed in range(runs):
        yield Run(f"fails {1 + seed % 50} times", seed, _stubborn)


def _stubborn(seed: int) -> Ended:
    fails = 1 + seed % 50
    world = World(PLAN, seed, candidate=failing(0.5), trouble=Refusing(("remove",), fails))
    return played(world, Wanted(OUT, page=fails >= 3))


def f11(runs: int) -> Iterator[Run]:
    """The decision expires or its key is revoked in the middle: what spoke for the candidate speaks no more."""
    for seed in range(runs):
        reason = ("the gate's decision has expired", "the gate's key was revoked", "the bytes were altered")[seed % 3]
        yield Run(reason, seed, partial(_requested, request=OperatorRequest(Ask.REFUSE, reason), ends=BLAMED))


def _requested(seed: int, request: OperatorRequest, ends: frozenset[State]) -> Ended:
    world = World(PLAN, seed)
    clean = acts_of(World(PLAN, seed))
    last = next(act.at for act in clean if act.what == "promote")
    world.requests.append((float(np.random.default_rng(seed).uniform(0.0, last)), request))
    return played(world, Wanted(ends))


def f12(runs: int) -> Iterator[Run]:
    """MLflow is down before, during and after the promotion; the registry hears of it later, exactly once."""
    for seed in range(runs):
        yield Run(("short", "long", "answer lost")[seed % 3], seed, _registry)


def _registry(seed: int) -> Ended:
    trouble: Trouble = Refusing(("mirror",), 3, 0.1)
    if seed % 3 == 1:
        trouble = Refusing(("mirror",), 40, 1.0)
    if seed % 3 == 2:
        trouble = _LostMirror(2)
    world = World(PLAN, seed, trouble=trouble)
    return played(world, Wanted(frozenset({State.PROMOTED})), gap=20.0)


@dataclass
class _LostMirror(Trouble):
    left: int

    def after(self, world: World, act: Act) -> None:
        if act.what == "mirror" and self.left:
            self.left -= 1
            raise RolloutError("mirror: the answer got lost")


def f13(runs: int) -> Iterator[Run]:
    """The candidate's pod moves to another node in the middle of a step; its counters begin at 0 again."""
    for seed in range(runs):
        yield Run("evicted", seed, _evicted)


def _evicted(seed: int) -> Ended:
    chance = np.random.default_rng(seed)
    at, away = float(chance.uniform(2.0, 10.0)), float(chance.uniform(0.2, 4.0))
    world = World(PLAN, seed, outlier=False, ttl=30.0)
    world.candidate = lambda _: Behaviour(ready=not at <= world.now < at + away)

    def begin_again(found: World) -> None:
        seen, empty = found.counters, Reading()
        found.counters = replace(seen, candidate=empty.candidate, live=0, mirrored=0)

    world.at(at + away, begin_again)
    answered: list[int] = []
    world.at(at, lambda w: answered.append(w.truth.seen[0]))
    ended = carry(world)
    if ended is not None and answered and ended.total.candidate.answered < answered[0]:
        world.violations.append(f"{ended.total.candidate.answered} answers counted, {answered[0]} before the move")
    return examine(world, ended, Wanted(TERMINAL))


def f14(runs: int) -> Iterator[Run]:
    """Abort, or a newer candidate, at every state; during the promotion, during the rollback, after the end."""
    for seed in range(runs):
        reason = "superseded by a newer candidate" if seed % 4 == 3 else "a person aborts"
        yield Run(f"{reason}, {_WHEN[seed % len(_WHEN)]}", seed, partial(_aborted, reason=reason))


_WHEN = ("Shadow", "Canary 5 %", "Canary 25 %", "Canary 50 %", "Canary 100 %", "Promoting", "RollingBack", "the end")


def _aborted(seed: int, reason: str) -> Ended:
    when = _WHEN[seed % len(_WHEN)]
    bad = when == "RollingBack"
    trouble = Refusing(("promote",), 4) if when == "Promoting" else Refusing(("remove",), 4 if bad else 0)
    world = World(PLAN, seed, candidate=failing(0.5) if bad else healthy, trouble=trouble)
    world.at(0.0, lambda w: _ask_in(w, when, OperatorRequest(Ask.ABORT, reason)))
    ends = frozenset({State.PROMOTED}) if when == "the end" else OUT if bad else UNDECIDED
    # Killed just when the request was read: it must not be lost with the driver.
    if seed % 2 and when != "the end":
        world.trouble = DiesOnRequest(trouble)
    return played(world, Wanted(ends))


@dataclass
class DiesOnRequest(Trouble):
    """Kills the driver before the first call that follows a request."""

    inner: Trouble
    done: bool = False

    def before(self, world: World, act: Act) -> None:
        """Kills once."""
        if world.granted and not self.done:
            self.done = True
            raise Killed
        self.inner.before(world, act)


def _ask_in(world: World, when: str, request: OperatorRequest) -> None:
    entered = {line.state for line in world.lines if line.kind == ("done" if when == "the end" else "intent")}
    if when in entered or (when == "the end" and "Promoted" in entered):
        world.requests.append((world.now, request))
        return
    world.at(world.now + 0.05, lambda w: _ask_in(w, when, request))


def f15(runs: int) -> Iterator[Run]:
    """The driver dies while some of the champion's servers run the new digest already."""
    for seed in range(runs):
        yield Run("for ever" if seed % 4 == 0 else "comes back", seed, _partial)


def _partial(seed: int) -> Ended:
    replicas = 3 + seed % 4
    clean = World(PLAN, seed, replicas=replicas)
    numbers = [act.number for act in acts_of(clean) if act.what == "promote"]
    chance = np.random.default_rng(seed)
    world = World(PLAN, seed, replicas=replicas, kill=Kill(int(chance.choice(numbers)), bool(chance.integers(2))))
    if seed % 4:
        return played(world, Wanted(frozenset({State.PROMOTED})), gap=float(chance.uniform(0.1, 20.0)))
    one_driver(world)
    world.advance(60.0)
    if 0 < world.router.replicas < replicas or (world.router.exposed and not world.router.kept):
        world.violations.append(f"60 s after its driver was gone the router had {world.router}")
    return replace(examine(world, None, Wanted()), state="one digest")


@dataclass
class Full(Trouble):
    """The disk is full, from a moment on, for a while."""

    since: float
    until: float

    def before(self, world: World, act: Act) -> None:
        """Refuses to write."""
        if act.what == "write" and self.since <= world.now < self.until:
            raise RolloutError("expected to write, found no space left on device")


def f16(runs: int) -> Iterator[Run]:
    """The disk is full; every other time for longer than the plan lets a driver go on blind."""
    for seed in range(runs):
        yield Run("short" if seed % 2 else "long", seed, _full)


def _full(seed: int) -> Ended:
    since = float(np.random.default_rng(seed).uniform(0.0, 6.0))
    world = World(PLAN, seed, trouble=Full(since, since + (6.0 if seed % 2 else 90.0)))
    ended = carry(world)
    for line in world.lines:
        if line.kind == "intent" and since <= line.at < since + 6.0:
            world.violations.append(f"{line.state} was announced on a full disk")
    return examine(world, ended, Wanted(TERMINAL if seed % 2 else OUT))


@dataclass(frozen=True)
class Fault:
    """One row of the matrix."""

    name: str
    title: str
    expected: str
    runs: Callable[[bool], Iterator[Run]] = field(repr=False)
    """Whether quick -> the runs."""


def _sized(make: Callable[[int], Iterator[Run]], full: int, quick: int) -> Callable[[bool], Iterator[Run]]:
    return lambda short: make(quick if short else full)


FAULTS: tuple[Fault, ...] = (
    Fault("F1", "driver killed before and after every side effect", "resumes, right end", _sized(f1, 8, 1)),
    Fault("F2", "driver gone for ever", "weight 0 by the dead-man's switch", _sized(f2, 40, 5)),
    Fault("F3", "metrics refused, 500, hang, empty, NaN, stale, future, reset", "hold, then out", _sized(f3, 20, 1)),
    Fault("F4", "API 409, 429, 500, partition, watch dropped, answer lost", "converges", _sized(f4, 20, 2)),
    Fault("F5", "two or three drivers at once, some paused", "one writer", _sized(f5, 100, 4)),
    Fault("F6", "low traffic: 0, 1, 20, 499 requests", "inconclusive", _sized(f6, 10, 1)),
    Fault("F7", "bad candidates of nine kinds", "out", _sized(f7, 20, 1)),
    Fault("F8", "champion dies during the canary", "paged; out, or held as planned", _sized(f8, 20, 4)),
    Fault("F9", "incident shared by both arms", "the candidate is not blamed", _sized(f9, 300, 10)),
    Fault("F10", "rollback's write fails 1 to 50 times", "retried until 0, paged", _sized(f10, 50, 4)),
    Fault("F11", "decision expired, key revoked, bytes altered", "out, blamed", _sized(f11, 60, 3)),
    Fault("F12", "MLflow down around the promotion", "promoted; told once, later", _sized(f12, 30, 3)),
    Fault(
        "F13",
        "candidate's pod moved in the middle of a step",
        "held when short, else out; counts kept",
        _sized(f13, 20, 2),
    ),
    Fault("F14", "abort and supersede at every state", "abort wins", _sized(f14, 64, 8)),
    Fault("F15", "promotion half done when the driver dies", "finished or taken back", _sized(f15, 40, 4)),
    Fault("F16", "disk full", "no step begins unannounced", _sized(f16, 20, 2)),
)
