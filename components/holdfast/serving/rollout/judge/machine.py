r"""The state machine of a rollout: pure and without a clock; time comes in with the snapshots.

    Pending -> Shadow -> Canary(0) -> ... -> Canary(n-1) -> Promoting -> Promoted
                  \________\________________\-> RollingBack -> RolledBack
                                                          \-> Inconclusive

Promoted, RolledBack and Inconclusive are terminal and stay so. In RollingBack and after it the desired weight is 0 and
the candidate is out. Promoting is entered only by the last step's verdict "enough".
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from holdfast.serving.rollout.drivers.driver import Desired
from holdfast.serving.rollout.judge.analysis import Judgement, Limits, Outcome, Tests, judge
from holdfast.serving.rollout.judge.counters import Snapshot


class State(StrEnum):
    """Where a rollout stands."""

    PENDING = "Pending"
    SHADOW = "Shadow"
    CANARY = "Canary"
    PROMOTING = "Promoting"
    PROMOTED = "Promoted"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    INCONCLUSIVE = "Inconclusive"


TERMINAL = frozenset({State.PROMOTED, State.ROLLED_BACK, State.INCONCLUSIVE})
WATCHED = frozenset({State.SHADOW, State.CANARY})
"""States in which looks are judged."""


@dataclass(frozen=True)
class Plan:
    """What was asked for."""

    limits: Limits
    shadow_requests: int
    steps: tuple[int, ...]
    """Percent of live traffic on the candidate."""
    step_requests: int


@dataclass(frozen=True)
class Rollout:
    """A rollout at one moment."""

    plan: Plan
    tests: Tests
    state: State = State.PENDING
    step: int = 0
    start: Snapshot = Snapshot()
    entry: Snapshot = Snapshot()
    """When the current state was entered."""
    last: Snapshot = Snapshot()
    judgement: Judgement = Judgement(Outcome.CONTINUE, "not started")
    ending: State = State.ROLLED_BACK
    """Where RollingBack ends: RolledBack, or Inconclusive."""

    @property
    def name(self) -> str:
        """The state with its weight, for people: `Canary 25 %`."""
        return f"{self.state} {self.plan.steps[self.step]} %" if self.state is State.CANARY else str(self.state)


def begin(plan: Plan) -> Rollout:
    """A rollout that has not started."""
    return Rollout(plan, Tests.fresh(plan.limits, len(plan.steps) + bool(plan.shadow_requests)))


def start(rollout: Rollout, now: Snapshot) -> Rollout:
    """Both servers are ready: into Shadow, or the first canary step when no shadow requests are asked for."""
    if rollout.state is not State.PENDING:
        return rollout
    begun = replace(rollout, start=now, last=now)
    if rollout.plan.shadow_requests:
        return _enter(begun, State.SHADOW, now, Judgement(Outcome.CONTINUE, "both servers are ready"))
    return _next_step(begun, 0, now, Judgement(Outcome.CONTINUE, "both servers are ready; no shadow asked for"))


def look(rollout: Rollout, now: Snapshot) -> Rollout:
    """Takes in one snapshot: stays, goes on, or turns back."""
    if rollout.state not in WATCHED:
        return rollout
    tests = rollout.tests.add(rollout.last, now)
    verdict = judge(
        tests,
        start=rollout.start,
        entry=rollout.entry,
        now=now,
        limits=rollout.plan.limits,
        missing=_missing(rollout, now),
    )
    seen = replace(rollout, tests=tests, last=now, judgement=verdict)
    if verdict.outcome is Outcome.ENOUGH:
        return _next_step(seen, 0 if rollout.state is State.SHADOW else rollout.step + 1, now, verdict)
    if verdict.outcome is Outcome.ROLL_BACK:
        return _turn_back(seen, State.ROLLED_BACK, verdict)
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return _turn_back(seen, State.INCONCLUSIVE, verdict)
    return seen


def confirm(rollout: Rollout) -> Rollout:
    """The side effects of Promoting or RollingBack are done: into the terminal state."""
    if rollout.state is State.PROMOTING:
        return replace(rollout, state=State.PROMOTED)
    if rollout.state is State.ROLLING_BACK:
        return replace(rollout, state=rollout.ending)
    return rollout


def abort(rollout: Rollout, reason: str) -> Rollout:
    """A person or the machine wants out: back to weight 0, which is not a verdict on the candidate.

    A promotion that has begun is finished instead; its effects are idempotent.
    """
    if rollout.state in TERMINAL or rollout.state in (State.PROMOTING, State.ROLLING_BACK):
        return rollout
    return _turn_back(rollout, State.INCONCLUSIVE, Judgement(Outcome.INCONCLUSIVE, reason))


def desired(rollout: Rollout) -> Desired:
    """Where traffic should go now."""
    if rollout.state is State.CANARY:
        return Desired(weight=rollout.plan.steps[rollout.step])
    if rollout.state in (State.PROMOTING, State.PROMOTED):
        return Desired(weight=100)
    if rollout.state in (State.PENDING, State.SHADOW):
        return Desired(shadow=rollout.state is State.SHADOW)
    return Desired(candidate=False)


def _missing(rollout: Rollout, now: Snapshot) -> int:
    """How many of the candidate's own answers the state still wants."""
    if rollout.state is State.SHADOW:
        return rollout.plan.shadow_requests - (now.mirrored - rollout.entry.mirrored)
    return rollout.plan.step_requests - (now.live - rollout.entry.live)


def _next_step(rollout: Rollout, step: int, now: Snapshot, verdict: Judgement) -> Rollout:
    if step == len(rollout.plan.steps):
        return _enter(rollout, State.PROMOTING, now, verdict)
    tests = rollout.tests if rollout.state is State.PENDING else rollout.tests.next_state()
    return replace(_enter(rollout, State.CANARY, now, verdict), step=step, tests=tests)


def _turn_back(rollout: Rollout, ending: State, verdict: Judgement) -> Rollout:
    return replace(_enter(rollout, State.ROLLING_BACK, rollout.last, verdict), ending=ending)


def _enter(rollout: Rollout, state: State, now: Snapshot, verdict: Judgement) -> Rollout:
    return replace(rollout, state=state, entry=now, judgement=verdict)
