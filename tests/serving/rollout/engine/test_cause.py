"""Which end blames whom; the machine is the real one, fed with counters."""

import signal
from dataclasses import replace

import pytest

from holdfast.artifacts.cause import Cause, of_exit
from holdfast.serving.rollout.contract.counters import Arm, NoData, Probes, Reading
from holdfast.serving.rollout.engine.analysis import Limits
from holdfast.serving.rollout.engine.machine import (
    Plan,
    PlanStep,
    Rollout,
    State,
    abort,
    begin,
    confirm,
    observe,
    refuse,
    start,
)

PLAN = Plan(Limits(), (PlanStep(50, 1000, max_seconds=30.0),), max_blind_seconds=5.0)


@pytest.fixture
def canary() -> Rollout:
    """At 50 %, after a healthy look."""
    before = observe(start(begin(PLAN)), Reading(weight=50))
    return observe(before, seen(1.0))


def seen(at: float, **more) -> Reading:
    """40 live requests so far, half of them at the candidate, all answered well unless `more` differs."""
    arms = {"candidate": Arm(20), "champion": Arm(20)}
    return replace(Reading(at=at, live=20, routed=40, weight=50, probes=Probes(pairs=20), **arms), **more)


def ended(rollout: Rollout) -> tuple[State, Cause]:
    return confirm(rollout).state, rollout.judgement.cause


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-signal.SIGSEGV, Cause.MODEL),
        (-signal.SIGABRT, Cause.MODEL),
        (1, Cause.MODEL),
        (-signal.SIGKILL, Cause.SERVER),
        (-signal.SIGTERM, Cause.SERVER),
        (0, Cause.SERVER),
        (None, Cause.SERVER),
    ],
)
def test_a_crash_is_the_models_fault_and_a_kill_from_outside_is_not(canary, code, cause):
    assert of_exit(code) is cause
    gone = observe(canary, seen(2.0, candidate_alive=False, candidate_exit=code))
    assert ended(gone) == (State.ROLLED_BACK, cause)
    assert cause.locks == (cause is Cause.MODEL)


@pytest.mark.parametrize(("unanswered", "cause"), [(0, Cause.MODEL), (12, Cause.SERVER)])
def test_answers_that_failed_are_the_models_and_silence_is_the_servers(canary, unanswered, cause):
    candidate = Arm(32, 12, refused=unanswered)
    row = observe(canary, seen(2.0, candidate=candidate, champion=Arm(40)))
    assert ended(row) == (State.ROLLED_BACK, cause)
    ejected = observe(canary, seen(2.0, candidate=candidate, champion=Arm(40), ejections=1))
    assert ended(ejected) == (State.ROLLED_BACK, cause)


def test_wrong_answers_are_the_models_fault_however_silent_its_server_was(canary):
    wrong = seen(2.0, candidate=Arm(60, 1, refused=1), champion=Arm(60), probes=Probes(pairs=80, disagreements=60))
    turned = observe(canary, wrong)
    assert "differ in more than" in turned.judgement.reason
    assert ended(turned) == (State.ROLLED_BACK, Cause.MODEL)


def test_a_wrong_split_is_the_routers(canary):
    off = observe(canary, seen(2.0, candidate=Arm(420), champion=Arm(40), live=420, routed=440))
    assert ended(off) == (State.ROLLED_BACK, Cause.ROUTER)


def test_a_champion_that_is_gone_or_fails_too_says_nothing_about_the_candidate(canary):
    gone = observe(canary, seen(2.0, champion_alive=False))
    both = observe(canary, seen(2.0, candidate=Arm(32, 12), champion=Arm(60, 30), ejections=1))
    for rollout in (gone, both):
        assert ended(rollout) == (State.INCONCLUSIVE, Cause.CHAMPION)


def test_too_little_in_time_is_a_lack_of_evidence(canary):
    late = observe(canary, seen(40.0))
    blind = observe(observe(canary, NoData(2.0, "no counters")), NoData(9.0, "no counters"))
    for rollout in (late, blind):
        assert ended(rollout) == (State.INCONCLUSIVE, Cause.EVIDENCE)
    assert Cause.EVIDENCE.passes


def test_a_person_ends_it_without_a_word_about_the_model(canary):
    assert ended(abort(canary, "release freeze")) == (State.INCONCLUSIVE, Cause.OPERATOR)


def test_a_decision_that_expires_takes_the_candidate_out_and_locks_nothing(canary):
    assert ended(refuse(canary, "the gate's decision has expired")) == (State.ROLLED_BACK, Cause.GATE)


def test_what_goes_on_has_no_cause(canary):
    assert (canary.state, canary.judgement.cause) == (State.CANARY, Cause.NONE)


def test_every_cause_says_what_to_do_in_one_sentence_and_only_one_locks():
    for cause in Cause:
        assert cause.words
        assert cause.advice.endswith(".")
        assert cause.advice.count(". ") == 0
    assert [cause for cause in Cause if cause.locks] == [Cause.MODEL]
    assert {cause for cause in Cause if cause.passes} == {Cause.HOST, Cause.EVIDENCE}
