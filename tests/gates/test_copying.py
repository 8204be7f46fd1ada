"""The checks of copies and of the guard: planted weak cases fail, honest ones pass, what is not known is neither."""

import pytest

from holdfast.artifacts.documents import (
    Count,
    ExtractionCurve,
    ExtractionLeftOut,
    ExtractionPoint,
    ExtractionReport,
    GuardCalibration,
    GuardStream,
    Verdict,
)
from holdfast_gates.copying import extraction_agreement, guard_detection, guard_false_alarms
from holdfast_gates.decide import Evidence, decide
from holdfast_gates.policy import CopiesAgree, FalseAlarms, StreamNoticed, with_overrides
from tests.gates.conftest import ABOUT

QUERIES = (100, 300, 1000, 3000)
ASKED = CopiesAgree(at_queries=1000, at_most=0.8)


def curve(strategy, *agreed, queries=QUERIES, outputs="full"):
    points = tuple(ExtractionPoint(queries=q, agreed=Count(k=k, n=500)) for q, k in zip(queries, agreed, strict=True))
    return ExtractionCurve(strategy=strategy, outputs=outputs, points=points)


HARD = tuple(curve(name, 50, 90, 120, 470) for name in ("random", "foreign", "jacobian"))
REAL = curve("in-distribution", 200, 330, 370, 480)


def copies(*curves, **changes):
    document = ExtractionReport(
        inputs=ABOUT, name="digits", curves=curves, agreement_at_most=0.8, alpha=0.05, budget=None, budget_reason="",
        seed=0, configuration={"epochs": 5, "examples": 2000, "alpha": 0.05},
    )  # fmt: skip
    return document.model_copy(update=changes)


def guard(**changes):
    document = GuardCalibration(
        inputs=ABOUT, name="digits", features="penultimate", reference_rows=9, held_out_rows=9, near_rows=9, alpha=1e-4,
        confidence=0.99, least_p=0.005, seed=0, benign=Count(k=0, n=20),
        streams=(GuardStream(name="noise", queries=300, alarm_at=21), GuardStream(name="shuffled", queries=300)),
    )  # fmt: skip
    return document.model_copy(update=changes)


def test_a_model_that_is_hard_to_copy_passes_by_the_bound_of_its_best_copy():
    found = extraction_agreement(copies(*HARD, REAL), ASKED, 0.05)
    assert (found.verdict, found.count) == (Verdict.PASS, Count(k=370, n=500))
    assert found.reason == "in-distribution, from probabilities, at 1000 queries"
    assert found.upper < 0.8
    assert extraction_agreement(copies(*HARD, REAL), CopiesAgree(at_queries=3000, at_most=0.8), 0.05).verdict is (
        Verdict.FAIL
    )


@pytest.mark.parametrize("strategy", ["random", "foreign", "jacobian", "in-distribution"])
def test_one_good_copy_is_enough_to_fail(strategy):
    others = [one for one in (*HARD, REAL) if one.strategy != strategy]
    planted = curve(strategy, 480, 20, 20, 20)
    found = extraction_agreement(copies(*others, planted), ASKED, 0.05)
    assert (found.verdict, found.measured) == (Verdict.FAIL, 0.96)


def test_a_rate_near_the_limit_is_not_decided():
    found = extraction_agreement(copies(*HARD, curve("in-distribution", 1, 1, 400, 400)), ASKED, 0.05)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason.endswith("the interval contains the threshold: evaluate more examples")


def test_a_strategy_that_was_not_tried_is_no_pass_and_does_not_hide_a_fail():
    found = extraction_agreement(copies(*HARD), ASKED, 0.05)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "in-distribution was not tried with 1000 queries: run `holdfast extract`" in found.reason
    few = [curve(one.strategy, 50, 90, queries=(100, 300)) for one in HARD]
    assert extraction_agreement(copies(*few, REAL), ASKED, 0.05).verdict is Verdict.INCONCLUSIVE
    assert extraction_agreement(copies(curve("random", 499, 1, 1, 1)), ASKED, 0.05).verdict is Verdict.FAIL
    assert extraction_agreement(copies(*HARD), CopiesAgree(at_queries=50, at_most=0.8), 0.05).verdict is (
        Verdict.INCONCLUSIVE
    )


def test_what_the_step_could_not_try_is_named_and_does_not_stop_the_model():
    gone = (
        ExtractionLeftOut(strategy="jacobian", reason="a step along a slope is not another message"),
        ExtractionLeftOut(strategy="in-distribution", queries=1000, reason="the attacker has 400 held-out rows"),
    )
    short = curve("in-distribution", 100, 200, 220, queries=(100, 300, 400))
    found = extraction_agreement(copies(HARD[0], HARD[1], short, left_out=gone), ASKED, 0.05)
    assert found.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.PASS), ({"alpha": 1e-6}, Verdict.PASS), ({"alpha": 1e-3}, Verdict.FAIL),
        ({"benign": Count(k=1, n=20)}, Verdict.FAIL), ({"benign": Count(k=0, n=0)}, Verdict.INCONCLUSIVE),
    ],
)  # fmt: skip
def test_a_guard_that_alarms_users_fails(changes, verdict):
    assert guard_false_alarms(guard(**changes), FalseAlarms(per_client_at_most=1e-4)).verdict is verdict


@pytest.mark.parametrize(
    ("stream", "limit", "verdict"),
    [
        ("noise", 100, Verdict.PASS), ("noise", 21, Verdict.PASS), ("noise", 20, Verdict.FAIL),
        ("shuffled", 100, Verdict.FAIL), ("shuffled", 301, Verdict.INCONCLUSIVE),
    ],
)  # fmt: skip
def test_a_guard_that_does_not_notice_fails(stream, limit, verdict):
    asked = StreamNoticed(stream=stream, queries_at_most=limit)
    assert guard_detection(guard(), asked).verdict is verdict
    assert guard_detection(guard(streams=()), asked).verdict is Verdict.INCONCLUSIVE


THRESHOLDS = {
    "extraction_agreement": {"at_queries": 1000, "at_most": 0.8},
    "guard_false_alarms": {"per_client_at_most": 1e-4},
    "guard_detection": {"stream": "noise", "queries_at_most": 100},
}


def test_the_checks_are_judged_only_where_the_policy_names_them(policy, judged, evidence):
    assert not {check.name for check in decide(policy, judged, evidence).checks} & set(THRESHOLDS)
    asking = with_overrides(policy, THRESHOLDS)
    missing = decide(asking, judged, evidence)
    reasons = {check.name: check.reason for check in missing.checks if check.verdict is Verdict.INCONCLUSIVE}
    assert set(reasons) == set(THRESHOLDS)
    assert reasons["extraction_agreement"] == "no evidence: no extract report was given"
    more = {"extract": Evidence(copies(*HARD, REAL), "1" * 64), "guard": Evidence(guard(), "2" * 64)}
    whole = decide(asking, judged, {**evidence, **more})
    assert whole.verdict is Verdict.PASS
    assert whole.inputs["extract"] == "1" * 64
    assert "extract.epochs" in {setting.name for setting in whole.measured_with}


def test_copies_of_another_model_are_no_evidence(policy, judged, evidence):
    asking = with_overrides(policy, {"extraction_agreement": THRESHOLDS["extraction_agreement"]})
    other = copies(*HARD, REAL, inputs={**ABOUT, "model": "9" * 64})
    found = decide(asking, judged, {**evidence, "extract": Evidence(other, "1" * 64)})
    assert found.verdict is Verdict.INCONCLUSIVE
    assert any("about another model" in check.reason for check in found.checks)


def test_copies_that_hardly_learned_do_not_keep_a_policy_that_binds_them(policy, judged, evidence):
    asking = with_overrides(policy, {"extraction_agreement": THRESHOLDS["extraction_agreement"]})
    value = asking.model_dump(mode="json", exclude_none=True)
    value["measured_with"]["extract"] = {"epochs": 5}
    bound = type(policy).model_validate(value)
    weak = copies(*HARD, REAL, configuration={"epochs": 1})
    found = decide(bound, judged, {**evidence, "extract": Evidence(weak, "1" * 64)})
    (check,) = [one for one in found.checks if one.name == "extraction_agreement"]
    assert (check.verdict, "extract.epochs is 1, asked is at least 5" in check.reason) == (Verdict.FAIL, True)
