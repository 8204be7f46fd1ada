"""The state machine: what it may do, whatever the counters say."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.serving.rollout.drivers.driver import Desired
from holdfast.serving.rollout.judge.analysis import Limits
from holdfast.serving.rollout.judge.counters import Arm, Snapshot
from holdfast.serving.rollout.judge.machine import (
    TERMINAL,
    Plan,
    Rollout,
    State,
    abort,
    begin,
    confirm,
    desired,
    look,
    start,
)

PLAN = Plan(Limits(0.05, 0.25, 10.0), shadow_requests=100, steps=(5, 50, 100), step_requests=50)


def grown(now: Snapshot, *, seconds=1.0, candidate=(60, 0, 0), champion=(200, 0, 0), pairs=(25, 0)) -> Snapshot:
    """One more look: (answered, failed, slow) at either arm, (pairs, disagreements)."""
    return replace(
        now,
        at=now.at + seconds,
        candidate=_plus(now.candidate, candidate),
        champion=_plus(now.champion, champion),
        live=now.live + candidate[0],
        mirrored=now.mirrored + candidate[0],
        pairs=now.pairs + pairs[0],
        disagreements=now.disagreements + pairs[1],
    )


def _plus(arm: Arm, more) -> Arm:
    return Arm(arm.answered + more[0], arm.failed + more[1], arm.slow + more[2])


def after(*looks, plan=PLAN) -> Rollout:
    rollout, now = start(begin(plan), Snapshot()), Snapshot()
    for more in looks:
        now = grown(now, **more)
        rollout = look(rollout, now)
    return rollout


HEALTHY = {}
ENOUGH_SHADOW = [HEALTHY, HEALTHY]


def test_a_healthy_candidate_goes_through_every_step_to_promoting():
    states = [after(*[HEALTHY] * n).name for n in range(6)]
    assert states == ["Shadow", "Shadow", "Canary 5 %", "Canary 50 %", "Canary 100 %", "Promoting"]


def test_shadow_mirrors_and_carries_no_live_traffic():
    assert desired(after()) == Desired(weight=0, shadow=True, candidate=True)


def test_without_shadow_requests_the_first_step_comes_first():
    assert after(plan=replace(PLAN, shadow_requests=0)).name == "Canary 5 %"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"candidate": (60, 20, 0)}, "fails more often"),
        ({"pairs": (25, 25)}, "candidate and champion differ"),
    ],
)
def test_a_proven_fault_turns_back(more, reason):
    rollout = after(*ENOUGH_SHADOW, more)
    assert (rollout.state, desired(rollout)) == (State.ROLLING_BACK, Desired(candidate=False))
    assert reason in rollout.judgement.reason
    assert confirm(rollout).state is State.ROLLED_BACK


def test_a_candidate_that_turns_slow_after_it_was_good_turns_back():
    slow = {"candidate": (20, 0, 20), "seconds": 0.25}
    rollout = after(*ENOUGH_SHADOW, *[{"candidate": (5, 0, 0), "seconds": 0.25}] * 9, *[slow] * 4)
    assert rollout.state is State.ROLLING_BACK
    assert "slow" in rollout.judgement.reason


def test_a_stall_of_both_arms_is_not_the_candidates_fault():
    stalled = {"candidate": (20, 0, 20), "champion": (200, 0, 200), "seconds": 0.25}
    assert after(*ENOUGH_SHADOW, *[stalled] * 6).state in (State.CANARY, State.PROMOTING)


def test_a_dead_candidate_is_never_promoted_although_no_client_saw_a_failure():
    # Masking: its count stands still, so its failure share is 0 of 0.
    dead = {"candidate": (0, 0, 0), "pairs": (0, 0), "seconds": 4.0}
    rollout = after(*ENOUGH_SHADOW, dead, dead, dead)
    assert (rollout.state, rollout.ending) == (State.ROLLING_BACK, State.INCONCLUSIVE)
    assert "50 of the candidate's own answers are missing" in rollout.judgement.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"candidate_alive": False}, "server is gone"), ({"ejections": 1}, "was ejected")],
)
def test_hard_limits_turn_back_at_once(change, reason):
    begun = after(*ENOUGH_SHADOW)
    rollout = look(begun, replace(grown(begun.last), **change))
    assert (rollout.state, rollout.ending) == (State.ROLLING_BACK, State.ROLLED_BACK)
    assert reason in rollout.judgement.reason


def test_five_failures_in_a_row_turn_back_without_waiting_for_the_test():
    plan = replace(PLAN, limits=replace(PLAN.limits, alpha=1e-9))
    rollout = after(*ENOUGH_SHADOW, {"candidate": (3, 3, 0)}, {"candidate": (2, 2, 0)}, plan=plan)
    assert "5 candidate failures in a row" in rollout.judgement.reason


def test_without_a_champion_failures_of_both_arms_are_not_excused():
    shared = {"candidate": (60, 2, 0), "champion": (200, 6, 0)}
    plan = replace(PLAN, limits=replace(PLAN.limits, probation=True))
    assert after(*ENOUGH_SHADOW, shared).name == "Canary 50 %"
    assert after(*ENOUGH_SHADOW, shared, plan=plan).name == "Canary 5 %"


def test_a_champion_that_dies_leaves_no_verdict_on_the_candidate():
    begun = after(*ENOUGH_SHADOW)
    rollout = look(begun, replace(grown(begun.last), champion_alive=False))
    assert confirm(rollout).state is State.INCONCLUSIVE


def test_an_abort_is_not_a_verdict_on_the_candidate():
    assert confirm(abort(after(HEALTHY), "told to stop")).state is State.INCONCLUSIVE


def test_a_promotion_that_has_begun_is_finished():
    promoting = after(*[HEALTHY] * 5)
    assert abort(promoting, "told to stop") == promoting
    assert confirm(promoting).state is State.PROMOTED


counts = st.tuples(st.integers(0, 80), st.integers(0, 80), st.integers(0, 80)).map(
    lambda c: (c[0], min(c[1], c[0]), min(c[2], c[0]))
)


class AnyRollout(RuleBasedStateMachine):
    """Counters that grow anyhow, confirmations and aborts at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = Snapshot()
        self.rollout = begin(PLAN)
        self.weights: list[int] = []
        self.live_at_entry = 0

    @rule()
    def starts(self) -> None:
        self.rollout = start(self.rollout, self.now)

    @rule(candidate=counts, champion=counts, pairs=st.integers(0, 30), wrong=st.integers(0, 30), dead=st.booleans())
    def looks(self, candidate, champion, pairs, wrong, dead) -> None:
        self.now = grown(self.now, candidate=candidate, champion=champion, pairs=(pairs, min(wrong, pairs)))
        self.now = replace(self.now, candidate_alive=self.now.candidate_alive and not dead)
        before = self.rollout
        self.rollout = look(before, self.now)
        if self.rollout.state is State.PROMOTING and before.state is State.CANARY:
            assert self.now.live - before.entry.live >= PLAN.step_requests
            assert self.now.candidate_alive

    @rule()
    def confirms(self) -> None:
        was = self.rollout
        self.rollout = confirm(was)
        if was.state not in (State.PROMOTING, State.ROLLING_BACK):
            assert self.rollout == was

    @precondition(lambda self: self.rollout.state in TERMINAL)
    @rule()
    def terminal_stays_terminal(self) -> None:
        ended = self.rollout
        assert start(ended, self.now) == look(ended, self.now) == abort(ended, "no") == confirm(ended) == ended

    @rule()
    def aborts(self) -> None:
        self.rollout = abort(self.rollout, "told to stop")

    @invariant()
    def weight_grows_step_by_step_or_is_zero(self) -> None:
        weight = desired(self.rollout).weight
        allowed = (0, *PLAN.steps)
        assert weight in allowed
        if self.weights and weight > self.weights[-1]:
            assert allowed.index(weight) == allowed.index(self.weights[-1]) + 1
        self.weights.append(weight)

    @invariant()
    def going_back_means_weight_zero_and_no_candidate(self) -> None:
        if self.rollout.state in (State.ROLLING_BACK, State.ROLLED_BACK, State.INCONCLUSIVE):
            assert desired(self.rollout) == Desired(weight=0, shadow=False, candidate=False)


TestAnyRollout = AnyRollout.TestCase
TestAnyRollout.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
