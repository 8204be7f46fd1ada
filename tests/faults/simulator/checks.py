"""Carries a rollout out in a world, driver after driver, and lists what was wrong; proofs are computed again here.

Nothing of `holdfast.serving.rollout.engine` decides whether a promotion had its proof: the counts are the world's own
and the interval is written down again below.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from holdfast.artifacts.cause import Cause
from holdfast.errors import FencedError, RegistryError, RolloutError
from holdfast.serving.rollout.engine.machine import TERMINAL, Plan, Rollout, State
from holdfast.serving.rollout.engine.state import dump, restore
from tests.faults.simulator.world import Killed, StuckError, Time, Trouble, World

MOST_DRIVERS = 60
ALONE_SECONDS = 5.0
"""The watchdog may need so much longer than the time to live."""
UNSEEN = 1.25
"""The bound over all answers, seen or not, stays below so many margins."""


@dataclass(frozen=True)
class Wanted:
    """What a run must come to."""

    ends: frozenset[State] = TERMINAL
    page: bool = False
    """Whether a person must have been called."""


@dataclass(frozen=True)
class Ended:
    """What came of one run."""

    state: str
    violations: tuple[str, ...]
    seconds_to_zero: float | None
    requests: int
    drivers: int
    looks: int
    reason: str = ""


def carry(world: World, gap: float = 2.0) -> Rollout | None:
    """The rollout's end, over as many drivers as it takes; None: it did not end before the world did."""
    try:
        for _ in range(MOST_DRIVERS):
            ended = one_driver(world)
            if ended is not None:
                return ended
            world.kill = None
            world.advance(gap)
    except StuckError:
        world.violations.append("stuck: the world ended first")
        return None
    world.violations.append(f"stuck: {MOST_DRIVERS} drivers came and went")
    return None


def one_driver(world: World) -> Rollout | None:
    """What one driver came to; None when it died or gave up, and the next has to go on."""
    fence = world.next_fence()
    world.begins(fence)
    try:
        return world.controller(fence, Time(world)).run()
    except (Killed, RegistryError, FencedError):
        return None
    except RolloutError as error:
        world.moves.append(("gave up", str(error)))
        return None
    finally:
        world.dies(fence)


def examine(world: World, ended: Rollout | None, wanted: Wanted) -> Ended:
    """Holds one run to everything that is promised."""
    found = list(world.violations)
    if ended is not None:
        found += _of_the_end(world, ended, wanted)
        found += _again(world, ended)
    found += _of_the_way(world, wanted)
    seconds = None if world.decided is None or world.zero is None else max(world.zero - world.decided, 0.0)
    state = "stuck" if ended is None else str(ended.state)
    return Ended(
        state,
        tuple(found),
        seconds,
        world.truth.clients,
        world.fences,
        world.looks,
        "" if ended is None else ended.judgement.reason,
    )


def _of_the_end(world: World, ended: Rollout, wanted: Wanted) -> Iterator[str]:
    router = world.router
    if ended.state not in TERMINAL:
        yield f"ended in {ended.state}, which is not an end"
    if ended.state not in wanted.ends:
        yield f"ended in {ended.state} ({ended.judgement.reason}), expected {' or '.join(sorted(wanted.ends))}"
    if ended.state is State.PROMOTED:
        yield from unproven(world, ended.plan)
        if (router.weight, router.kept, router.replicas) != (100, True, world.replicas):
            yield f"promoted, and the router has {router}"
        if world.truth.moved != ["candidate"]:
            yield f"promoted, and the registry was changed {len(world.truth.moved)} times"
    else:
        if router.exposed or router.candidate or router.replicas:
            yield f"{ended.state}, and the router has {router}"
        if world.truth.moved:
            yield f"{ended.state}, and the registry was told of a promotion"
    if (ended.state is State.PROMOTED) != (ended.judgement.cause is Cause.NONE):
        yield f"{ended.state} with the cause {ended.judgement.cause}"
    if restore(dump(ended), ended.plan) != ended:
        yield "the last state does not survive being written and read"


def _again(world: World, ended: Rollout) -> Iterator[str]:
    """Terminal states stay terminal: one more driver changes nothing."""
    before = replace(world.router)
    world.kill, world.trouble, world.requests = None, Trouble(), []
    again = one_driver(world)
    if again is None or again.state is not ended.state:
        yield f"{ended.state} did not stay: {again.state if again else 'no end'}"
    if (before.weight, before.candidate) != (world.router.weight, world.router.candidate):
        yield f"a driver after the end moved traffic: {before} -> {world.router}"


def _of_the_way(world: World, wanted: Wanted) -> Iterator[str]:
    if world.truth.lost:
        yield f"{world.truth.lost} client requests lost"
    if world.exposed_alone > world.ttl + ALONE_SECONDS:
        yield f"the candidate had traffic for {world.exposed_alone:.1f} s without a driver"
    if world.mixed_alone > world.ttl + ALONE_SECONDS:
        yield f"servers of both digests for {world.mixed_alone:.1f} s without a driver"
    if wanted.page and not world.paged:
        yield "no person was paged"
    yield from _writers(world)
    yield from _repeats(world)


def _writers(world: World) -> Iterator[str]:
    """Acts that took effect belong to drivers in order: once a newer one acted, no older one did."""
    effects = ("write", "apply", "remove", "promote")
    for kind in (("write",), effects[1:]):
        fences = [act.fence for act in world.acts if act.what in kind and act.done]
        if any(later < earlier for earlier, later in pairwise(fences)):
            yield f"two writers: {kind[0]} by driver after driver {fences}"


def _repeats(world: World) -> Iterator[str]:
    """A step is announced once, and once more for each driver that died and each answer that got lost."""
    entered = [line.state for line in world.lines if line.kind == "intent"]
    lost = sum(act.lost for act in world.acts if act.what == "write")
    for name in set(entered):
        if entered.count(name) > world.fences + lost:
            yield f"{name} was announced {entered.count(name)} times by {world.fences} drivers"


def unproven(world: World, plan: Plan) -> Iterator[str]:
    """What the proof of a promotion lacks, from what was really answered."""
    truth = world.proof
    for step in plan.steps:
        if truth.own.get(step.weight, 0) < step.requests:
            yield f"promoted with {truth.own.get(step.weight, 0)} of {step.requests} answers at {step.weight} %"
    if plan.shadow is not None and truth.own.get(0, 0) < plan.shadow.requests:
        yield f"promoted with {truth.own.get(0, 0)} of {plan.shadow.requests} answers in the shadow"
    margin, seen = plan.limits.margin, truth.seen
    # What no driver saw (between two steps, between two drivers) is missing data, and must not be much.
    for answers, most in ((seen[:2], seen[2:]), margin), ((truth.candidate, truth.champion), UNSEEN * margin):
        upper = difference_below(*answers)
        if not upper < most:
            yield f"promoted with a bound of {upper:.4f} from {answers}, margin {most}"
    if truth.ejections:
        yield f"promoted after {truth.ejections} ejections"
    if truth.died:
        yield "promoted although the candidate's server was gone"


def difference_below(candidate: list[int], champion: list[int], z: float = 1.6448536269514722) -> float:
    """Newcombe's hybrid score bound (1998, method 10) of the difference of two shares, from [answered, failed]."""
    (n, x), (m, y) = candidate, champion
    if not n or not m:
        return math.inf
    p, q = x / n, y / m
    upper = (2 * x + z * z + z * math.sqrt(z * z + 4 * x * (1 - p))) / (2 * (n + z * z))
    lower = (2 * y + z * z - z * math.sqrt(z * z + 4 * y * (1 - q))) / (2 * (m + z * z))
    return p - q + math.sqrt((upper - p) ** 2 + (q - lower) ** 2)
