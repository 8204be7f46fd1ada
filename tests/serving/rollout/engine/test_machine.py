"""The state machine: what it may do, whatever the counters say."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.artifacts.cause import Cause
from holdfast.errors import RolloutError
from holdfast.serving.rollout.contract.counters import Arm, NoData, Probes, Reading
from holdfast.serving.rollout.contract.driver import Desired
from holdfast.serving.rollout.engine.analysis import Conclusion, Limits
from holdfast.serving.rollout.engine.machine import (
    TERMINAL,
    WATCHED,
    Plan,
    PlanStep,
    Rollout,
    State,
    abort,
    approve,
    begin,
    confirm,
    desired,
    observe,
    refuse,
    resume,
    start,
)
from holdfast.serving.rollout.engine.state import dump, restore

EDGES = (25.0, 250.0, 1000.0)
BACK = (State.ROLLING_BACK, State.ROLLED_BACK, State.INCONCLUSIVE)
"""States in which the candidate is out."""
LIMITS = Limits(max_disagreement=0.25, classes=10)
PLAN = Plan(
    LIMITS,
    steps=(PlanStep(5, 50), PlanStep(50, 50), PlanStep(100, 250)),
    shadow=PlanStep(0, 100),
    max_blind_seconds=5.0,
)


def grown(
    now: Reading,
    *,
    weight=None,
    seconds=1.0,
    candidate=(60, 0, 0),
    champion=(200, 0, 0),
    pairs=(25, 0),
    broken=0,
    timed_out=0,
    **fields,
) -> Reading:
    """One more look: (answered, failed, slower than 250 ms) of either arm, (pairs, disagreements).

    In the shadow (no weight) the candidate's answers are mirrored ones, otherwise live, split as the weight says.
    """
    live = 0 if not weight else candidate[0]
    return replace(
        now,
        at=now.at + seconds,
        edges_ms=EDGES,
        candidate=now.candidate.plus(_arm(candidate, timed_out)),
        champion=now.champion.plus(_arm(champion)),
        live=now.live + live,
        mirrored=now.mirrored + candidate[0] - live,
        routed=now.routed + (live * 100 // weight if weight else champion[0]),
        probes=now.probes.plus(Probes(pairs[0], pairs[1], (pairs[1],), (0, pairs[1]), broken)),
        weight=weight or 0,
        **fields,
    )


def _arm(counts, timed_out=0) -> Arm:
    answered, failed, slow = counts
    timed = answered - timed_out
    return Arm(answered, failed, timed, (timed - slow, timed - slow, timed), timed_out)


def after(*looks, plan=PLAN) -> Rollout:
    """A rollout that was started, had one look without growth, and then these."""
    rollout, now = start(begin(plan)), Reading(edges_ms=EDGES)
    rollout = observe(rollout, replace(now, weight=desired(rollout).weight))
    for more in looks:
        now = grown(now, weight=desired(rollout).weight, **more)
        rollout = observe(rollout, now)
    return rollout


HEALTHY = {"candidate": (260, 0, 0)}
IN_CANARY = [HEALTHY, HEALTHY]


def test_a_healthy_candidate_goes_through_every_step_to_promoting():
    states = [after(*[HEALTHY] * n).name for n in range(6)]
    # One look more at 50 %: latency is compared three times, and not in the shadow.
    assert states == ["Shadow", "Canary 5 %", "Canary 50 %", "Canary 50 %", "Canary 100 %", "Promoting"]


def test_in_the_shadow_copies_that_queue_up_are_not_the_candidates_fault():
    rollout = after(*[SLOW] * 60, plan=replace(PLAN, shadow=PlanStep(0, 10**6)))
    assert (rollout.state, rollout.tests.compared.slow.blocks) == (State.SHADOW, 0)


def test_a_candidate_whose_attempts_time_out_does_not_leave_the_shadow():
    hanging = {"candidate": (60, 60, 0), "timed_out": 60}
    assert after(*[hanging] * 6).state is not State.CANARY
    assert after(*[{**hanging, "candidate": (60, 6, 0), "timed_out": 6}] * 6).state is not State.CANARY


def test_shadow_mirrors_and_carries_no_live_traffic():
    assert desired(after()) == Desired(weight=0, shadow=True, candidate=True)


def test_without_a_shadow_the_first_step_comes_first():
    assert after(plan=replace(PLAN, shadow=None)).name == "Canary 5 %"


def test_a_step_takes_its_own_answers_pairs_and_time():
    few = {"candidate": (49, 0, 0)}
    assert "1 of the candidate's own answers are missing" in after(HEALTHY, few).judgement.reason
    assert "paired answers are missing" in after({**HEALTHY, "pairs": (0, 0)}).judgement.reason
    patient = replace(PLAN, shadow=PlanStep(0, 100, min_seconds=10.0))
    assert "least time" in after(HEALTHY, plan=patient).judgement.reason


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"candidate": (60, 20, 0)}, "fails more often|failures in a row"),
        ({"pairs": (40, 40)}, "candidate and champion differ"),
        ({"pairs": (0, 0), "broken": 5}, "probes in a row|breaks more probes"),
    ],
)
def test_a_proven_fault_turns_back(more, reason):
    rollout = after(*IN_CANARY, more)
    assert (rollout.state, desired(rollout)) == (State.ROLLING_BACK, Desired(candidate=False))
    assert any(part in rollout.judgement.reason for part in reason.split("|")), rollout.judgement.reason
    assert confirm(rollout).state is State.ROLLED_BACK


SLOW = {"candidate": (20, 0, 20), "seconds": 0.25}


def test_a_candidate_that_turns_slow_after_it_was_good_turns_back():
    rollout = after(*IN_CANARY, *[SLOW] * 24)
    assert (rollout.state, rollout.judgement.cause) == (State.ROLLING_BACK, Cause.MODEL)
    assert "takes longer than the champion" in rollout.judgement.reason


def test_a_few_slow_looks_are_no_verdict_and_hold_the_step():
    # What ended rollouts on busy machines: most answers slow in four looks in a row, the champion's were not.
    rollout = after(*IN_CANARY, *[SLOW] * 6)
    assert rollout.name == "Canary 50 %"
    assert "slower than the champion of late" in rollout.judgement.reason


def test_slow_answers_that_stop_do_not_hold_the_step_for_ever():
    assert after(*IN_CANARY, *[SLOW] * 6, *[HEALTHY] * 30).state is State.PROMOTING


def test_a_stall_of_both_arms_is_not_the_candidates_fault():
    stalled = {"candidate": (20, 0, 20), "champion": (200, 0, 200), "seconds": 0.25}
    assert after(*IN_CANARY, *[stalled] * 40).state in (State.CANARY, State.PROMOTING)


def test_nothing_is_slow_where_the_champion_answers_nothing():
    alone = {"candidate": (20, 0, 20), "champion": (0, 0, 0), "seconds": 0.25}
    assert after(*IN_CANARY, *[alone] * 40).state is State.CANARY


def test_no_latency_is_compared_while_the_machine_itself_stalls():
    # Only the candidate's answers are slow, but the controller was kept waiting as well: that is no data.
    rollout = after(*[{**SLOW, "lag": 0.5}] * 80)
    assert (rollout.tests.compared.slow.blocks, rollout.tests.compared.slow.stalled) == (0, 37)
    assert rollout.name == "Canary 5 %"


def test_a_rollout_on_a_machine_that_is_too_busy_to_judge_blames_the_machine():
    rollout = after(*[{"candidate": (40, 0, 0), "lag": 0.5}] * 80)
    assert (rollout.state, rollout.ending) == (State.ROLLING_BACK, State.INCONCLUSIVE)
    assert rollout.judgement.cause is Cause.HOST
    assert "too busy" in rollout.judgement.reason


def test_without_a_champion_latency_is_compared_with_nothing():
    probation = replace(PLAN, limits=replace(LIMITS, probation=True))
    rollout = after(*[{**SLOW, "candidate": (200, 0, 200)}] * 40, plan=probation)
    assert rollout.tests.compared.slow.blocks == 0
    assert rollout.state is not State.ROLLING_BACK


def test_above_half_of_the_traffic_latency_is_compared_only_with_a_champion_as_busy():
    at_100 = [HEALTHY] * 4
    few = {**SLOW, "candidate": (5, 0, 5)}
    alone, with_copies = after(*at_100, *[few] * 24), after(*at_100, *[{**few, "balanced": True}] * 24)
    assert (alone.name, alone.tests.compared.slow.blocks) == ("Canary 100 %", 3)
    assert with_copies.state is State.ROLLING_BACK


def test_attempts_that_time_out_are_slow_answers_and_no_failures_in_a_row():
    # A busy machine lets attempts time out too, so four of them in a row are no verdict.
    silent = {"candidate": (4, 4, 0), "timed_out": 4, "seconds": 0.5}
    assert after(*IN_CANARY, silent).state is State.CANARY
    rollout = after(*IN_CANARY, *[silent] * 12)
    assert (rollout.state, rollout.ending) == (State.ROLLING_BACK, State.ROLLED_BACK)
    assert "takes longer" in rollout.judgement.reason


def test_a_dead_candidate_is_never_promoted_although_no_client_saw_a_failure():
    # Masking: its count stands still, so its failure share is 0 of 0.
    dead = {"candidate": (0, 0, 0), "pairs": (0, 0), "seconds": 21.0}
    rollout = after(*IN_CANARY, dead, dead, dead)
    assert (rollout.state, rollout.ending) == (State.ROLLING_BACK, State.INCONCLUSIVE)
    assert "50 of the candidate's own answers are missing" in rollout.judgement.reason


def test_a_candidate_that_is_routed_to_and_does_not_answer_is_masked():
    begun = after(*IN_CANARY)
    now = replace(grown(begun.last, weight=50), live=begun.last.live, routed=begun.last.routed + 400)
    assert "answered 0 of 400 live requests" in observe(begun, now).judgement.reason


def test_counters_read_a_moment_apart_are_no_wrong_split():
    # 1,200 requests a second at weight 100 %: 90 ms apart are 108 requests.
    begun = after(*[HEALTHY] * 3)
    more = grown(begun.last, weight=100, candidate=(1200, 0, 0))
    assert observe(begun, replace(more, routed=more.routed - 108)).state is not State.ROLLING_BACK


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"candidate_alive": False}, "server is gone"), ({"ejections": 1}, "was ejected")],
)
def test_hard_limits_turn_back_at_once(change, reason):
    begun = after(*IN_CANARY)
    rollout = observe(begun, replace(grown(begun.last, weight=50), **change))
    assert (rollout.state, rollout.ending) == (State.ROLLING_BACK, State.ROLLED_BACK)
    assert reason in rollout.judgement.reason


def test_an_ejection_while_the_champion_fails_too_is_no_verdict():
    begun = after(*IN_CANARY)
    now = grown(begun.last, weight=50, candidate=(60, 12, 0), champion=(200, 40, 0))
    rollout = observe(begun, replace(now, ejections=1))
    assert (rollout.state, rollout.ending) == (State.ROLLING_BACK, State.INCONCLUSIVE)


def test_without_a_champion_failures_of_both_arms_are_not_excused():
    shared = {"candidate": (260, 8, 0), "champion": (200, 6, 0)}
    probation = replace(PLAN, limits=replace(LIMITS, probation=True))
    assert after(HEALTHY, shared).name == "Canary 50 %"
    assert after(HEALTHY, shared, plan=probation).name == "Canary 5 %"


def test_a_champion_that_dies_leaves_no_verdict_on_the_candidate():
    begun = after(*IN_CANARY)
    rollout = observe(begun, replace(grown(begun.last, weight=50), champion_alive=False))
    assert confirm(rollout).state is State.INCONCLUSIVE


def test_a_plan_that_holds_keeps_the_weight_without_its_champion():
    plan = replace(PLAN, limits=replace(LIMITS, hold_without_champion=True))
    begun = after(*IN_CANARY, plan=plan)
    assert observe(begun, replace(grown(begun.last, weight=50), champion_alive=False)).name == "Canary 50 %"


def test_looks_that_see_nothing_end_without_a_verdict():
    begun = after(*IN_CANARY)
    rollout = begun
    for seconds in range(1, 7):
        rollout = observe(rollout, NoData(begun.at + seconds, "connection refused"))
    assert confirm(rollout).state is State.INCONCLUSIVE
    assert "nothing seen for" in rollout.judgement.reason
    assert "connection refused" in rollout.judgement.reason


def test_a_router_with_another_weight_is_not_what_was_asked_for():
    begun = after(*IN_CANARY)
    rollout = observe(begun, replace(grown(begun.last, weight=50), weight=0))
    assert (rollout.name, rollout.total) == (begun.name, begun.total)
    assert "wanted is 50 %" in rollout.judgement.reason


def test_counters_that_went_back_add_nothing():
    begun = after(*IN_CANARY)
    restarted = grown(Reading(edges_ms=EDGES, at=begun.at), weight=50)
    rollout = observe(begun, restarted)
    assert rollout.total == begun.total
    assert observe(rollout, grown(restarted, weight=50)).total.candidate.answered == begun.total.candidate.answered + 60


def test_what_happened_in_a_gap_is_missing_data():
    begun = resume(after(*IN_CANARY))
    now = grown(grown(Reading(), weight=50, candidate=(900, 900, 0)), weight=50)
    rollout = observe(begun, now)
    assert (rollout.name, rollout.total) == (begun.name, begun.total)


def test_the_last_step_waits_for_an_approval_and_not_for_ever():
    plan = replace(PLAN, approval=True, approval_seconds=100.0)
    waiting = after(*[HEALTHY] * 5, plan=plan)
    assert "waiting for an approval" in waiting.judgement.reason
    assert observe(approve(waiting), grown(waiting.last, weight=100, **HEALTHY)).state is State.PROMOTING
    late = observe(waiting, grown(waiting.last, weight=100, seconds=200.0, **HEALTHY))
    assert confirm(late).state is State.INCONCLUSIVE


def test_an_approval_is_no_proof():
    assert approve(after(*IN_CANARY)).state is State.CANARY


def test_an_abort_is_not_a_verdict_on_the_candidate():
    assert confirm(abort(after(HEALTHY), "told to stop")).state is State.INCONCLUSIVE


def test_a_promotion_under_way_is_taken_back_by_an_abort():
    promoting = after(*[HEALTHY] * 5)
    assert promoting.state is State.PROMOTING
    assert confirm(promoting).state is State.PROMOTED
    assert confirm(abort(promoting, "told to stop")).state is State.INCONCLUSIVE


counts = st.tuples(st.integers(0, 400), st.integers(0, 3), st.integers(0, 80)).map(
    lambda c: (c[0], min(c[1], c[0]), min(c[2], c[0]))
)
gross = st.tuples(st.integers(0, 80), st.integers(0, 80), st.integers(0, 80)).map(
    lambda c: (c[0], min(c[1], c[0]), min(c[2], c[0]))
)


def test_only_an_end_is_read_under_another_plan():
    other = replace(PLAN, limits=replace(LIMITS, probation=True))
    running = start(begin(PLAN))
    with pytest.raises(RolloutError, match="it belongs to another rollout"):
        restore(dump(running), other)
    ended = confirm(abort(running, "told to stop"))
    assert restore(dump(ended), other) == replace(ended, plan=other)


class AnyRollout(RuleBasedStateMachine):
    """Counters that grow anyhow, blind looks, gaps, requests and confirmations at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = Reading(edges_ms=EDGES)
        self.rollout = begin(PLAN)
        self.weights: list[int] = []

    @rule()
    def starts(self) -> None:
        self.rollout = start(self.rollout)

    @rule(candidate=counts, champion=counts, pairs=st.integers(0, 60), wrong=st.integers(0, 3))
    def looks(self, candidate, champion, pairs, wrong) -> None:
        self._look(grown(self.now, weight=self._weight, candidate=candidate, champion=champion, pairs=(pairs, wrong)))

    @rule(n=st.integers(100, 400))
    def sees_a_healthy_one(self, n) -> None:
        self._look(grown(self.now, weight=self._weight, candidate=(n, 0, 0), champion=(n, 0, 0)))

    @rule(candidate=gross, champion=gross, dead=st.booleans(), gone=st.booleans(), ejected=st.integers(0, 1))
    def sees_trouble(self, candidate, champion, dead, gone, ejected) -> None:
        now = grown(self.now, weight=self._weight, candidate=candidate, champion=champion)
        alive = {"candidate_alive": not dead, "champion_alive": not gone}
        self._look(replace(now, ejections=now.ejections + ejected, **alive))

    @rule(seconds=st.floats(0.1, 10.0))
    def sees_nothing(self, seconds) -> None:
        before = self.rollout
        self.now = replace(self.now, at=self.now.at + seconds)
        self.rollout = observe(before, NoData(self.now.at, "connection refused"))
        stayed = (self.rollout.state, self.rollout.step) == (before.state, before.step)
        assert stayed or self.rollout.state is State.ROLLING_BACK

    @rule()
    def comes_back_after_a_gap(self) -> None:
        self.rollout = resume(self.rollout)

    def _look(self, now: Reading) -> None:
        before, self.now = self.rollout, now
        self.rollout = observe(before, now)
        if self.rollout.state is State.PROMOTING and before.state is not State.PROMOTING:
            last = PLAN.steps[-1]
            assert (before.state, before.step) == (State.CANARY, len(PLAN.steps) - 1)
            assert self.rollout.judgement.outcome is Conclusion.ENOUGH
            assert self.rollout.judgement.evidence["error_bound"] < LIMITS.margin
            assert before.last is not None
            assert before.here.live + now.live - before.last.live >= last.requests
            assert now.candidate_alive

    @property
    def _weight(self) -> int:
        return desired(self.rollout).weight

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
        same = (start(ended), observe(ended, self.now), abort(ended, "no"), refuse(ended, "no"), approve(ended))
        assert all(one == ended for one in (*same, confirm(ended), observe(ended, NoData(0.0, "no"))))

    @rule()
    def aborts(self) -> None:
        was = self.rollout.state
        self.rollout = abort(self.rollout, "told to stop")
        if was not in TERMINAL:
            assert self.rollout.state is State.ROLLING_BACK
            assert was is State.ROLLING_BACK or self.rollout.ending is State.INCONCLUSIVE

    @rule()
    def refuses(self) -> None:
        was = self.rollout.state
        self.rollout = refuse(self.rollout, "the decision has expired")
        if was not in TERMINAL and was is not State.ROLLING_BACK:
            assert (self.rollout.state, self.rollout.ending) == (State.ROLLING_BACK, State.ROLLED_BACK)

    @rule()
    def approves(self) -> None:
        was = self.rollout.state
        self.rollout = approve(self.rollout)
        assert self.rollout.state is was

    @invariant()
    def weight_grows_step_by_step_or_is_zero(self) -> None:
        weight, allowed = self._weight, (0, *(step.weight for step in PLAN.steps))
        assert weight in allowed
        if self.weights and weight > self.weights[-1]:
            assert allowed.index(weight) == allowed.index(self.weights[-1]) + 1
        self.weights.append(weight)

    @invariant()
    def going_back_means_weight_zero_and_no_candidate(self) -> None:
        if self.rollout.state in BACK:
            assert desired(self.rollout) == Desired(weight=0, shadow=False, candidate=False)
        else:
            assert desired(self.rollout).shadow is (self.rollout.state is State.SHADOW)

    @invariant()
    def only_watched_states_are_judged(self) -> None:
        if self.rollout.state not in WATCHED:
            assert observe(self.rollout, self.now) == self.rollout

    @invariant()
    def it_survives_being_written_and_read(self) -> None:
        assert restore(dump(self.rollout), PLAN) == self.rollout


TestAnyRollout = AnyRollout.TestCase
TestAnyRollout.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
