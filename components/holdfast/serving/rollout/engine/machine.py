r"""The state machine of a rollout: pure and without a clock; time comes in with the observations.

    Pending -> Shadow -> Canary(0) -> ... -> Canary(n-1) -> Promoting -> Promoted
                  \________\________________\______________\-> RollingBack -> RolledBack
                                                                         \-> Inconclusive

Promoted, RolledBack and Inconclusive are terminal and stay so. In RollingBack and after it the desired weight is 0 and
the candidate is out. Promoting is entered only by the last step's verdict "enough", with the proof in its evidence.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from holdfast.artifacts.cause import Cause
from holdfast.serving.rollout.contract.counters import (
    EQUAL_WEIGHT,
    Counts,
    NoData,
    Observation,
    Reading,
    between,
    went_back,
)
from holdfast.serving.rollout.contract.driver import Desired
from holdfast.serving.rollout.engine.analysis import Conclusion, Judgement, Limits, Progress, Tests, evidence, judge


class State(StrEnum):
    """The states of a rollout."""

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
"""States in which observations are judged."""


@dataclass(frozen=True)
class PlanStep:
    """One stretch of the rollout."""

    weight: int
    """Percent of live traffic on the candidate; 0 in the shadow."""
    requests: int
    """Answers of the candidate's own before the next step."""
    min_seconds: float = 0.0
    max_seconds: float = 60.0


@dataclass(frozen=True)
class Plan:
    """What was asked for."""

    limits: Limits
    steps: tuple[PlanStep, ...]
    shadow: PlanStep | None = None
    max_blind_seconds: float = 15.0
    approval: bool = False
    approval_seconds: float = 3600.0


@dataclass(frozen=True)
class Rollout:
    """A rollout at one moment."""

    plan: Plan
    tests: Tests
    state: State = State.PENDING
    step: int = 0
    total: Counts = Counts()
    """Since the rollout began."""
    here: Counts = Counts()
    """Since the current state was entered."""
    last: Reading | None = None
    """What the next observation is compared with; None: it is the first one, or the first after a gap."""
    at: float | None = None
    """When the last observation was made."""
    seconds: float = 0.0
    """In the current state."""
    blind: float = 0.0
    """Seconds since the last observation with data."""
    approved: bool = False
    judgement: Judgement = field(default_factory=lambda: Judgement(Conclusion.CONTINUE, "not started"))
    ending: State = State.ROLLED_BACK
    """Where RollingBack ends: RolledBack, or Inconclusive."""

    @property
    def name(self) -> str:
        """The state with its weight, for people: `Canary 25 %`."""
        return f"{self.state} {self.here_step.weight} %" if self.state is State.CANARY else str(self.state)

    @property
    def here_step(self) -> PlanStep:
        """The plan of the current state; the last step's when it is none of the watched ones."""
        if self.state is State.SHADOW and self.plan.shadow is not None:
            return self.plan.shadow
        return self.plan.steps[min(self.step, len(self.plan.steps) - 1)]


def begin(plan: Plan) -> Rollout:
    """A rollout that has not started."""
    return Rollout(plan, Tests.fresh(plan.limits, len(plan.steps) + (plan.shadow is not None)))


def start(rollout: Rollout) -> Rollout:
    """Both servers are ready: into Shadow, or the first canary step when no shadow is asked for."""
    if rollout.state is not State.PENDING:
        return rollout
    if rollout.plan.shadow is not None:
        return _enter(rollout, State.SHADOW, Judgement(Conclusion.CONTINUE, "both servers are ready"))
    return _next_step(rollout, 0, Judgement(Conclusion.CONTINUE, "both servers are ready; no shadow asked for"))


def observe(rollout: Rollout, seen: Observation) -> Rollout:
    """Takes in one observation: stays, goes on, or turns back."""
    if rollout.state not in WATCHED:
        return rollout
    passed = 0.0 if rollout.at is None else max(seen.at - rollout.at, 0.0)
    rollout = replace(rollout, at=seen.at, seconds=rollout.seconds + passed)
    reason = _unusable(rollout, seen)
    if isinstance(seen, NoData) or reason is not None:
        last = rollout.last if isinstance(seen, NoData) else seen
        return _without_data(replace(rollout, last=last, blind=rollout.blind + passed), reason or "")
    before = seen if rollout.last is None else rollout.last
    return _judged(replace(rollout, blind=0.0), between(before, seen), seen)


def count(rollout: Rollout, seen: Reading) -> Rollout:
    """Adds a reading to the counts and judges nothing: after the end, for the record."""
    if rollout.last is None or went_back(rollout.last, seen) is not None:
        return replace(rollout, last=seen)
    return replace(rollout, total=rollout.total.plus(between(rollout.last, seen)), last=seen)


def resume(rollout: Rollout) -> Rollout:
    """After a gap (a crash, a paused process): what happened unseen is missing data, neither good nor bad."""
    return replace(rollout, last=None, at=None)


def confirm(rollout: Rollout) -> Rollout:
    """The side effects of Promoting or RollingBack are done: into the terminal state."""
    if rollout.state is State.PROMOTING:
        return replace(rollout, state=State.PROMOTED)
    if rollout.state is State.ROLLING_BACK:
        return replace(rollout, state=rollout.ending)
    return rollout


def abort(rollout: Rollout, reason: str, cause: Cause = Cause.OPERATOR) -> Rollout:
    """A person or the machine wants out: back to weight 0, which is not a verdict on the candidate.

    It wins over everything but a terminal state: a promotion under way is taken back too.
    """
    if rollout.state in TERMINAL or rollout.state is State.ROLLING_BACK:
        return rollout
    return _turn_back(rollout, State.INCONCLUSIVE, Judgement(Conclusion.INCONCLUSIVE, reason, _facts(rollout), cause))


def refuse(rollout: Rollout, reason: str) -> Rollout:
    """Something outside the counters speaks against the candidate: the decision on its bytes does not hold."""
    if rollout.state in TERMINAL or rollout.state is State.ROLLING_BACK:
        return rollout
    verdict = Judgement(Conclusion.ROLL_BACK, reason, _facts(rollout), Cause.GATE)
    return _turn_back(rollout, State.ROLLED_BACK, verdict)


def approve(rollout: Rollout) -> Rollout:
    """A person agrees to the promotion; the proof is still needed."""
    return rollout if rollout.state in TERMINAL else replace(rollout, approved=True)


def desired(rollout: Rollout) -> Desired:
    """Where traffic should go now."""
    if rollout.state is State.CANARY:
        return Desired(weight=rollout.here_step.weight)
    if rollout.state in (State.PROMOTING, State.PROMOTED):
        return Desired(weight=100)
    if rollout.state in (State.PENDING, State.SHADOW):
        return Desired(shadow=rollout.state is State.SHADOW)
    return Desired(candidate=False)


def _unusable(rollout: Rollout, seen: Observation) -> str | None:
    """The reason why an observation cannot be judged; None when it can."""
    if isinstance(seen, NoData):
        return seen.reason
    wanted = desired(rollout).weight
    if seen.weight is not None and seen.weight != wanted:
        return f"the router has weight {seen.weight} %, wanted is {wanted} %"
    if rollout.last is None:
        return None
    back = went_back(rollout.last, seen)
    if back is not None:
        return f"counter {back} went back: its server was started again"
    if rollout.last.edges_ms and seen.edges_ms != rollout.last.edges_ms:
        return "the latency buckets changed"
    return None


def _without_data(rollout: Rollout, reason: str) -> Rollout:
    facts = _facts(rollout)
    step = rollout.here_step
    for passed, limit in ((rollout.blind, rollout.plan.max_blind_seconds), (rollout.seconds, _deadline(rollout, step))):
        if passed >= limit:
            late = f"nothing seen for {rollout.blind:.1f} s: {reason}"
            verdict = Judgement(Conclusion.INCONCLUSIVE, late, facts, Cause.EVIDENCE)
            return _turn_back(rollout, State.INCONCLUSIVE, verdict)
    return replace(rollout, judgement=Judgement(Conclusion.CONTINUE, f"nothing seen: {reason}", facts))


def _judged(rollout: Rollout, more: Counts, now: Reading) -> Rollout:
    timed = _timed(rollout, desired(rollout).weight, now)
    tests = rollout.tests.add(more, rollout.total, now.edges_ms, rollout.plan.limits, timed=timed)
    seen = replace(rollout, tests=tests, total=rollout.total.plus(more), here=rollout.here.plus(more), last=now)
    verdict = judge(tests, _progress(seen, now), rollout.plan.limits)
    seen = replace(seen, judgement=verdict)
    if verdict.outcome is Conclusion.ENOUGH:
        return _enough(seen, verdict)
    if verdict.outcome is Conclusion.ROLL_BACK:
        return _turn_back(seen, State.ROLLED_BACK, verdict)
    if verdict.outcome is Conclusion.INCONCLUSIVE:
        return _turn_back(seen, State.INCONCLUSIVE, verdict)
    return seen


def _enough(rollout: Rollout, verdict: Judgement) -> Rollout:
    if not _last_step(rollout) or rollout.approved or not rollout.plan.approval:
        return _next_step(rollout, 0 if rollout.state is State.SHADOW else rollout.step + 1, verdict)
    if rollout.seconds >= rollout.plan.approval_seconds:
        late = f"not approved within {rollout.plan.approval_seconds:g} s"
        verdict = Judgement(Conclusion.INCONCLUSIVE, late, verdict.evidence, Cause.OPERATOR)
        return _turn_back(rollout, State.INCONCLUSIVE, verdict)
    waiting = Judgement(Conclusion.CONTINUE, "every step has passed; waiting for an approval", verdict.evidence)
    return replace(rollout, judgement=waiting)


def _progress(rollout: Rollout, now: Reading) -> Progress:
    step = rollout.here_step
    own = rollout.here.mirrored if rollout.state is State.SHADOW else rollout.here.live
    return Progress(
        total=rollout.total,
        here=rollout.here,
        now=now,
        weight=desired(rollout).weight,
        missing=step.requests - own,
        seconds=rollout.seconds,
        min_seconds=step.min_seconds,
        max_seconds=_deadline(rollout, step),
        last_step=_last_step(rollout),
        timed=_timed(rollout, desired(rollout).weight, now),
        timed_later=any(_timed(rollout, step.weight, now) for step in _later(rollout)),
    )


def _timed(rollout: Rollout, weight: int, seen: Reading) -> bool:
    """Whether latency is compared at this weight.

    Not in a shadow: no client waits for the answers to copies, so where cores are scarce they queue up at a candidate
    that is as fast as the champion. With more traffic than the champion a candidate may be slower, too.
    """
    return not rollout.plan.limits.probation and weight > 0 and (weight <= EQUAL_WEIGHT or seen.balanced)


def _later(rollout: Rollout) -> tuple[PlanStep, ...]:
    return rollout.plan.steps if rollout.state is State.SHADOW else rollout.plan.steps[rollout.step + 1 :]


def _deadline(rollout: Rollout, step: PlanStep) -> float:
    waits = _last_step(rollout) and rollout.plan.approval
    return max(step.max_seconds, rollout.plan.approval_seconds) if waits else step.max_seconds


def _last_step(rollout: Rollout) -> bool:
    return rollout.state is State.CANARY and rollout.step == len(rollout.plan.steps) - 1


def _facts(rollout: Rollout) -> dict[str, float]:
    return evidence(rollout.tests, rollout.total)


def _next_step(rollout: Rollout, step: int, verdict: Judgement) -> Rollout:
    if step == len(rollout.plan.steps):
        return _enter(rollout, State.PROMOTING, verdict)
    tests = rollout.tests if rollout.state is State.PENDING else rollout.tests.next_state(rollout.plan.limits)
    return replace(_enter(rollout, State.CANARY, verdict), step=step, tests=tests)


def _turn_back(rollout: Rollout, ending: State, verdict: Judgement) -> Rollout:
    return replace(_enter(rollout, State.ROLLING_BACK, verdict), ending=ending)


def _enter(rollout: Rollout, state: State, verdict: Judgement) -> Rollout:
    return replace(rollout, state=state, here=Counts(), seconds=0.0, blind=0.0, judgement=verdict)
