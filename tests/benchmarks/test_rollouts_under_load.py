"""The table of rollouts under load, from ends that are known; and one real rollout under a real load."""

import json

import pytest

from benchmarks.load import Kind
from benchmarks.records import Records
from benchmarks.rollouts_under_load import CASES, Case, measure, rows
from holdfast.workload.schema import RolloutPlan

PLAN = RolloutPlan().model_dump(mode="json")


def record(candidate: str, load: str | None, seed: int, outcome: str, reason: str = "", **more: object):
    facts = {"candidate": candidate, "load": load, "seed": seed, "plan": PLAN, "outcome": outcome, "reason": reason}
    sent = {"requests_sent": 100, "requests_failed": 0, "where": "Canary 5 %", "wall": 20.0, "wanted_core": 9.0}
    return {**facts, **sent, "left": [], **more}


def many(candidate: str, outcome: str, each: int):
    return [record(candidate, load, seed, outcome) for load in "ab" for seed in range(each)]


def met(found, beginning: str) -> bool | None:
    (only,) = [row for row in found if row.target.startswith(beginning)]
    return only.met


def test_the_targets_are_met_by_rollouts_that_all_end_as_expected():
    found = rows([*many("healthy", "promoted", 30), *many("slow", "rolled-back", 15)])
    assert {row.met for row in found} == {True, None}


def test_a_single_rollback_of_a_healthy_candidate_misses_the_target_and_is_quoted():
    blamed = record("healthy", "b", 30, "rolled-back", "most of its answers were slow in 4 looks")
    found = rows([*many("healthy", "promoted", 30), blamed])
    assert met(found, "healthy candidate under load (a) and (b): rolled back") is False
    assert met(found, "healthy candidate under load (a) and (b): promoted") is True
    (promoted,) = [row for row in found if row.target.endswith("(b): promoted")]
    assert "load b, seed 30: rolled-back in Canary 5 %: most of its answers were slow in 4 looks" in promoted.note


@pytest.mark.parametrize(("inconclusive", "expected"), [(6, True), (7, False)])
def test_nine_of_ten_must_be_promoted(inconclusive, expected):
    kept = many("healthy", "promoted", 30)[inconclusive:]
    kept += [record("healthy", "a", 30 + n, "inconclusive", "the host was busy") for n in range(inconclusive)]
    assert met(rows(kept), "healthy candidate under load (a) and (b): promoted") is expected


@pytest.mark.parametrize("outcome", ["promoted", "no end"])
def test_a_slow_candidate_that_is_not_out_misses_the_target(outcome):
    kept = [*many("slow", "inconclusive", 15)[1:], record("slow", "a", 0, outcome)]
    assert met(rows(kept), "candidate that answers 400 ms later") is False


def test_fewer_rollouts_than_asked_for_meet_nothing():
    found = rows(many("healthy", "promoted", 29))
    assert met(found, "healthy candidate under load (a) and (b): live rollouts") is False


def test_rollouts_with_another_plan_or_without_load_do_not_count():
    other = {**PLAN, "step_requests": 7}
    found = rows([record("healthy", "a", 0, "promoted", plan=other), record("healthy", None, 0, "promoted")])
    (counted,) = [row for row in found if row.target.endswith("(b): live rollouts")]
    assert counted.measured == 0


def test_equal_reasons_are_counted_together_whatever_their_figures():
    kept = [record("slow", "a", n, "rolled-back", f"e = {n}.5 of 20 (game day: delay_ms=400)") for n in (1, 2)]
    (about,) = [row for row in rows(kept) if row.target.startswith("slow candidate, load (a)")]
    assert about.note == "2 x e = #.# of ##"


def test_each_case_asks_for_what_the_targets_say():
    assert sum(case.wanted for case in CASES if case.candidate == "healthy") == 60
    assert sum(case.wanted for case in CASES if case.candidate == "slow") == 30


@pytest.mark.nightly
def test_a_real_rollout_under_load_ends_and_is_not_made_twice(tmp_path, capfd):
    # One short step whose deadline passes at once: how it ends is the same on every machine.
    plan = RolloutPlan(shadow_requests=0, steps=(50,), step_requests=10**6, max_step_seconds=0.5)
    records, wanted = Records.of("rollouts", "code", root=tmp_path), {Case("healthy", Kind.A): 2}
    for _ in range(2):
        measure(records, wanted, plan, 2)
    found, other = records.read()
    assert (other["outcome"], other["seed"]) == ("inconclusive", 1)
    assert (found["outcome"], found["where"], found["left"]) == ("inconclusive", "Canary 50 %", [])
    assert found["requests_failed"] == 0
    assert found["cpu"] > 1.0, "two model servers import torch"
    assert found["wanted_core"] >= 7
    assert "no verdict within 0.5 s" in json.dumps(found)
    assert "healthy, load a, seed 0: inconclusive" in capfd.readouterr().err
