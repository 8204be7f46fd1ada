"""Whether the test of latency is fair: simulated rollouts of equal arms, and of a slower candidate, through the judge.

Each run is a whole rollout through the state machine, with the default plan and time enough for its traffic. Answers
are fast or over the plan's limit, each by chance; stalls make all answers slow for a while, of both arms or of one.
"""

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.scenes import Bench
from benchmarks.table import Row, at_least, at_most, shown
from holdfast.serving.rollout.contract.counters import EQUAL_WEIGHT, Arm, Probes, Reading
from holdfast.serving.rollout.engine import machine
from holdfast.serving.rollout.engine.machine import WATCHED, Plan, State
from holdfast.serving.rollout.engine.plan import plan_of
from holdfast.workload.schema import RolloutPlan

RUNS, SEED = 2000, 1
SHARES = (0.02, 0.1, 0.3)
RATES = (2.0, 20.0, 200.0)
LOOKS = {2.0: 4.0, 20.0: 0.5, 200.0: 0.25}
"""Seconds between looks for each rate."""
STALLS = ("none", "both arms", "one arm")
EDGES = (10.0, 25.0, 50.0, 100.0, 250.0, 400.0, 630.0, 1000.0)
FAST = (0.6, 0.3, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Shares of the buckets of an answer within the limit, and of one above it."""
SLOW = (0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.3, 0.15, 0.05)
PROBES = 0.1
"""Pairs, and adversarial rows, per client request, as the replay sends them."""
CALM, SHORTEST, LONGEST = 8.0, 0.1, 1.0
"""Mean seconds between two stalls, and how long one lasts."""


@dataclass(frozen=True)
class Case:
    """What is simulated."""

    share: float
    """Of the champion's answers that take longer than the limit, outside of stalls."""
    rate: float
    """Live requests per second."""
    stalls: str = "none"
    later: float | None = None
    """The same share of the candidate, from the start; None: as the champion's."""


@dataclass(frozen=True)
class Found:
    """Ends of the runs, as shares."""

    rolled_back: float
    promoted: float
    seconds: float
    """Median until the end."""


class Stalled:
    """Which part of a stretch of time lies in stalls; they last 0.1 to 1.5 s, and begin every 8 s in the mean."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._begins, self._ends = rng, 0.0, 0.0

    def part(self, since: float, until: float) -> float:
        """Share of the stretch, in [0, 1]."""
        total = 0.0
        while self._begins < until:
            total += max(min(self._ends, until) - max(self._begins, since), 0.0)
            if self._ends > until:
                break
            self._begins = self._ends + float(self._rng.exponential(CALM))
            self._ends = self._begins + float(self._rng.uniform(SHORTEST, LONGEST))
        return total / (until - since)


def simulate(case: Case, *, runs: int, seed: int) -> Found:
    """How so many rollouts end."""
    plan = plan_for(case.rate)
    ends = [_end(case, plan, np.random.default_rng([seed, number])) for number in range(runs)]
    states = [state for state, _ in ends]
    share = {state: states.count(state) / runs for state in (State.ROLLED_BACK, State.PROMOTED)}
    return Found(share[State.ROLLED_BACK], share[State.PROMOTED], float(np.median([at for _, at in ends])))


def plan_for(rate: float) -> Plan:
    """The default plan, with three times the time that its smallest step needs at this rate."""
    config = RolloutPlan()
    seconds = max(config.max_step_seconds, 3 * config.step_requests / (0.05 * rate))
    timely = config.model_copy(update={"max_step_seconds": seconds})
    return plan_of(timely, classes=2, attacks=None, probation=False)


def run(bench: Bench) -> list[Row]:
    """Equal arms, then slower candidates."""
    equal = [Case(share, rate, stalls) for share in SHARES for rate in RATES for stalls in STALLS]
    return [*(row for case in equal for row in _equal(case)), *_slower()]


def _equal(case: Case) -> list[Row]:
    found = simulate(case, runs=RUNS, seed=SEED)
    what = f"equal arms, {case.share:.0%} of answers over the limit, {case.rate:g}/s, stalls: {case.stalls}"
    how = f"{RUNS:,} simulated rollouts of the default plan, a look every {LOOKS[case.rate]:g} s, seed {SEED}"
    return [
        at_most(f"{what}: rolled back", found.rolled_back, 0.05, how),
        at_least(f"{what}: promoted", found.promoted, 0.9, how),
    ]


def _slower() -> list[Row]:
    rows = []
    for later in (0.2, 0.5, 1.0):
        found = simulate(Case(0.02, 200.0, later=later), runs=200, seed=SEED)
        what = f"candidate with {later:.0%} of answers over the limit, champion 2 %, 200/s"
        how = f"200 simulated rollouts, median {found.seconds:.1f} s until the end; rolled back {found.rolled_back:.3f}"
        rows.append(at_most(f"{what}: promoted", found.promoted, 0.05, how))
        rows.append(shown(f"{what}: seconds until the end, median", found.seconds, how))
    return rows


def _end(case: Case, plan: Plan, rng: np.random.Generator) -> tuple[State, float]:
    world = _World(case, rng)
    rollout = machine.start(machine.begin(plan))
    while rollout.state in WATCHED:
        wanted = machine.desired(rollout)
        after = machine.observe(rollout, world.look(wanted.weight, shadow=wanted.shadow))
        moved = (after.state, after.step) != (rollout.state, rollout.step)
        rollout = replace(after, last=replace(world.seen, weight=None)) if moved else after
    return machine.confirm(rollout).state, world.seen.at


class _World:
    """Two servers that answer alike, and the counters that a driver would read."""

    def __init__(self, case: Case, rng: np.random.Generator) -> None:
        self._case, self._rng, self._seconds = case, rng, LOOKS[case.rate]
        both = Stalled(rng)
        self._stalls = (both, both) if case.stalls == "both arms" else (Stalled(rng), Stalled(rng))
        self.seen = Reading(edges_ms=EDGES, balanced=True)

    def look(self, weight: int, *, shadow: bool) -> Reading:
        """What has come a look later."""
        rng, seen = self._rng, self.seen
        n, pairs = (int(rng.poisson(self._case.rate * self._seconds * share)) for share in (1.0, PROBES))
        live = int(rng.binomial(n, weight / 100))
        copies = int(rng.binomial(n, max(weight - EQUAL_WEIGHT, 0) / (100 - EQUAL_WEIGHT)))
        mirrored = 2 * pairs + (n if shadow else 0)
        ours, theirs = self._slow_shares(seen.at)
        self.seen = replace(
            seen,
            at=seen.at + self._seconds,
            candidate=seen.candidate.plus(self._answers(live + mirrored, ours)),
            champion=seen.champion.plus(self._answers(n - live + copies + 2 * pairs, theirs)),
            live=seen.live + live,
            mirrored=seen.mirrored + mirrored,
            routed=seen.routed + n,
            probes=seen.probes.plus(Probes(pairs)),
        )
        return self.seen

    def _slow_shares(self, since: float) -> tuple[float, float]:
        """Of the candidate and of the champion."""
        case, until = self._case, since + self._seconds
        later = case.share if case.later is None else case.later
        if case.stalls == "none":
            return later, case.share
        ours = self._stalls[0].part(since, until)
        theirs = ours if case.stalls == "both arms" else self._stalls[1].part(since, until)
        return 1 - (1 - later) * (1 - ours), 1 - (1 - case.share) * (1 - theirs)

    def _answers(self, n: int, slow: float) -> Arm:
        late = int(self._rng.binomial(n, slow))
        buckets = self._rng.multinomial(n - late, FAST) + self._rng.multinomial(late, SLOW)
        return Arm(n, 0, n, tuple(np.cumsum(buckets)[:-1].tolist()))
