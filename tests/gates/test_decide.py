from dataclasses import replace
from types import NoneType
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.artifacts.documents import (
    Anomaly,
    ChampionComparison,
    Count,
    Detector,
    MaskingCheck,
    Paired,
    TriggerResult,
    Verdict,
    worst,
)
from holdfast.statistics import clopper_pearson
from holdfast.steps import evidence as evidence_steps
from holdfast.steps import role_of
from holdfast_gates import champion, checks
from holdfast_gates.decide import Evidence, decide
from holdfast_gates.policy import AtLeast, AtMost, Checks, Margin, Policy, with_overrides
from holdfast_gates.rules import RULES

ORDER = list(Verdict)


def line(decision, name):
    return next(check for check in decision.checks if check.name == name)


def spoil(evidence, make, role, **changes):
    return {**evidence, role: Evidence(make[role](**changes), evidence[role].digest)}


def test_every_check_of_a_policy_has_a_rule_that_takes_its_thresholds():
    assert list(RULES) == list(Checks.model_fields)
    for name, field in Checks.model_fields.items():
        thresholds = get_type_hints(RULES[name].judge)["asked"]
        assert set(get_args(field.annotation)) == {thresholds, NoneType}


def test_every_step_that_writes_evidence_is_read_by_a_check():
    assert {role_of(rule.reads) for rule in RULES.values()} - {"snapshot"} == set(evidence_steps())


def test_a_good_model_with_all_its_evidence_passes(policy, judged, evidence):
    decision = decide(policy, judged, evidence)
    assert [check.name for check in decision.checks if check.verdict is not Verdict.PASS] == []
    assert decision.verdict is Verdict.PASS
    assert decision.inputs["model"] == judged.model_digest
    assert set(decision.inputs) == {"model", "snapshot", *evidence}
    assert decision.policy == policy.digest


def test_the_same_evidence_gives_the_same_decision(policy, judged, evidence):
    assert decide(policy, judged, evidence) == decide(policy, judged, dict(reversed(evidence.items()))).model_copy()


@pytest.mark.parametrize("role", ["schema", "drift", "scan", "backdoor", "attack", "certify"])
def test_missing_evidence_is_not_a_pass(policy, judged, evidence, role):
    del evidence[role]
    decision = decide(policy, judged, evidence)
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert any(f"no {role} report" in check.reason for check in decision.checks)


@pytest.mark.parametrize("role", ["backdoor", "attack", "certify"])
def test_evidence_about_another_model_is_not_a_pass(policy, judged, evidence, make, role):
    stale = spoil(evidence, make, role, inputs={"model": "9" * 64, "snapshot": judged.snapshot_digest})
    decision = decide(policy, judged, stale)
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert any("about another model" in check.reason for check in decision.checks)


@pytest.mark.parametrize("role", ["schema", "drift", "scan", "backdoor", "attack", "certify"])
def test_evidence_about_another_snapshot_is_not_a_pass(policy, judged, evidence, make, role):
    stale = spoil(evidence, make, role, inputs={"model": judged.model_digest, "snapshot": "9" * 64})
    decision = decide(policy, judged, stale)
    assert decision.verdict is not Verdict.PASS
    assert any("about another snapshot" in check.reason for check in decision.checks)


@pytest.mark.parametrize("read", [{}, {"snapshot": "9" * 64, "scan": "c" * 64}, {"snapshot": "b" * 64}])
def test_a_model_that_was_not_trained_on_this_snapshot_and_scan_fails(policy, judged, evidence, read):
    other = replace(judged, model=judged.model.model_copy(update={"inputs": read}))
    decision = decide(policy, other, evidence)
    assert line(decision, "lineage").verdict is Verdict.FAIL
    assert decision.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("role", "changes", "check"),
    [
        ("attack", {"clean": Count(k=700, n=1000)}, "clean_accuracy"),
        ("attack", {"worst_case": Count(k=300, n=1000)}, "robust_accuracy"),
        (
            "attack",
            {"masking": (MaskingCheck(name="black box", verdict=Verdict.FAIL, detail="Square beats PGD"),)},
            "gradient_masking",
        ),
        (
            "attack",
            {"champion_clean": Paired(both=850, only_candidate=0, only_champion=130, neither=20)},
            "champion_clean",
        ),
        (
            "attack",
            {"champion_worst_case": Paired(both=600, only_candidate=10, only_champion=200, neither=190)},
            "champion_robust",
        ),
        ("certify", {"abstained": Count(k=150, n=200)}, "abstention"),
        ("backdoor", {"flagged": ("0",), "verdict": Verdict.FAIL}, "backdoor"),
        ("backdoor", {"flagged": ("0",), "verdict": Verdict.PASS}, "backdoor"),
        ("scan", {"applied": False, "verdict": Verdict.PASS}, "poison"),
        ("scan", {"suspects": Count(k=90, n=1000)}, "poison"),
        ("scan", {"verdict": Verdict.INCONCLUSIVE}, "poison"),
        ("drift", {"verdict": Verdict.FAIL, "reason": "broken"}, "drift"),
        (
            "schema",
            {"verdict": Verdict.FAIL, "anomalies": (Anomaly(column="a", kind="ENUM", detail=""),)},
            "schema_anomalies",
        ),
    ],
)
def test_each_weakness_alone_stops_the_model(policy, judged, evidence, make, role, changes, check):
    decision = decide(policy, judged, spoil(evidence, make, role, **changes))
    blamed = [line.name for line in decision.checks if line.verdict is not Verdict.PASS]
    assert blamed == [check]
    assert decision.verdict is not Verdict.PASS


@pytest.mark.parametrize(
    ("leaked", "verdict"), [(0, Verdict.PASS), (10, Verdict.PASS), (11, Verdict.FAIL), (None, Verdict.INCONCLUSIVE)]
)
def test_held_out_rows_that_were_trained_on_stop_the_model(policy, judged, evidence, leaked, verdict):
    seen = replace(judged, snapshot=judged.snapshot.model_copy(update={"leaked_rows": leaked}))
    decision = decide(policy, seen, evidence)
    assert line(decision, "leakage").verdict is verdict
    assert decision.verdict is verdict


def test_without_any_radius_nothing_is_known_of_the_certificate(policy, judged, evidence, make):
    decision = decide(policy, judged, spoil(evidence, make, "certify", certified=()))
    blamed = [line.name for line in decision.checks if line.verdict is Verdict.INCONCLUSIVE]
    assert blamed == ["certified_accuracy", "certified_class_recall"]


def test_masked_gradients_are_called_an_overestimate(policy, judged, evidence, make):
    masking = (MaskingCheck(name="black box", verdict=Verdict.FAIL, detail="Square beats PGD"),)
    check = line(decide(policy, judged, spoil(evidence, make, "attack", masking=masking)), "gradient_masking")
    assert check.verdict is Verdict.FAIL
    assert "overestimated: black box: Square beats PGD" in check.reason


@pytest.mark.parametrize("changes", [{"masking": ()}, {"attacks": ()}, {"clean": Count(k=0, n=0)}])
def test_a_report_that_looked_at_nothing_is_not_a_pass(policy, judged, evidence, make, changes):
    assert decide(policy, judged, spoil(evidence, make, "attack", **changes)).verdict is Verdict.INCONCLUSIVE


def test_a_small_drift_is_judged_by_what_the_model_makes_of_it(policy, judged, evidence, make):
    moved = spoil(evidence, make, "drift", verdict=Verdict.INCONCLUSIVE)
    assert decide(policy, judged, moved).verdict is Verdict.PASS
    strict = with_overrides(policy, {"drift": {"worst_accepted": "pass"}})
    assert decide(strict, judged, moved).verdict is Verdict.INCONCLUSIVE


def test_few_examples_are_inconclusive_and_more_of_the_same_pass(policy, judged, evidence, make):
    # Clopper-Pearson by scipy.stats.binomtest: 29 of 30 has the lower bound 0.851, 2900 of 3000 has 0.961.
    few = decide(policy, judged, spoil(evidence, make, "attack", clean=Count(k=29, n=30)))
    many = decide(policy, judged, spoil(evidence, make, "attack", clean=Count(k=2900, n=3000)))
    assert line(few, "clean_accuracy").verdict is Verdict.INCONCLUSIVE
    assert line(few, "clean_accuracy").lower == pytest.approx(0.851, abs=1e-3)
    assert line(many, "clean_accuracy").verdict is Verdict.PASS


def test_without_a_champion_the_comparison_is_skipped_and_says_so(policy, judged, evidence, make):
    lost = {"champion_clean": None, "champion_worst_case": None, "champion_classes": ()}
    alone = spoil(evidence, make, "attack", champion=ChampionComparison(), **lost)
    decision = decide(policy, judged, alone)
    assert decision.verdict is Verdict.PASS
    assert line(decision, "champion_robust").reason.startswith("skipped: no champion")


def test_when_nobody_looked_for_a_champion_the_comparison_is_not_skipped(policy, judged, evidence, make):
    about = {"model": judged.model_digest, "snapshot": judged.snapshot_digest}
    alone = spoil(evidence, make, "attack", inputs=about, champion_clean=None, champion_worst_case=None)
    assert line(decide(policy, judged, alone), "champion_clean").verdict is Verdict.INCONCLUSIVE


def test_the_certificate_at_the_next_larger_radius_counts(policy, judged, evidence):
    # Asked at 0.1; certificates stand at 0 and 0.25, and what holds at 0.25 holds at 0.1.
    assert line(decide(policy, judged, evidence), "certified_accuracy").count == Count(k=120, n=200)


def test_a_certificate_at_smaller_radii_only_is_no_evidence(policy, judged, evidence):
    wide = with_overrides(policy, {"certified_accuracy": {"radius": 0.5}})
    check = line(decide(wide, judged, evidence), "certified_accuracy")
    assert check.verdict is Verdict.INCONCLUSIVE
    assert "no certificate at radius 0.5" in check.reason


def test_a_check_is_asked_only_in_its_modalities(judged, evidence):
    policy = Policy.model_validate({"name": "p", "alpha": 0.05, "checks": {"drift": {"applies_to": ["text"]}}})
    decision = decide(policy, judged, evidence)
    assert [check.name for check in decision.checks] == ["lineage", "policy"]
    assert decision.verdict is Verdict.INCONCLUSIVE


def test_suspects_within_a_permitted_share_may_stay(policy, judged, evidence, make):
    lax = with_overrides(policy, {"poison": {"left_in_at_most": 0.05}})
    few = spoil(evidence, make, "scan", applied=False, detectors=(_alarm(),))
    check = line(decide(lax, judged, few), "poison")
    assert check.verdict is Verdict.PASS
    assert "alarms: spectral" in check.reason


def test_a_flagged_trigger_counts_even_when_the_summary_forgot_it(policy, judged, evidence, make):
    trigger = TriggerResult(target="1", size=1.0, anomaly_index=4.0, success=Count(k=9, n=9), flagged=True)
    assert line(decide(policy, judged, spoil(evidence, make, "backdoor", triggers=(trigger,))), "backdoor").verdict is (
        Verdict.FAIL
    )


def _alarm():
    return Detector(name="spectral", statistic=9.0, threshold=4.0, alarm=True)


@given(n=st.integers(1, 400), k=st.integers(0, 399), required=st.floats(0, 1), alpha=st.floats(0.001, 0.2))
def test_one_more_correct_example_never_makes_the_verdict_worse(n, k, required, alpha):
    k = min(k, n - 1)
    before, after = (checks._accuracy(Count(k=c, n=n), AtLeast(at_least=required), alpha).verdict for c in (k, k + 1))
    assert ORDER.index(after) <= ORDER.index(before)


@given(n=st.integers(1, 400), k=st.integers(0, 399), most=st.floats(0, 1))
def test_one_more_abstention_never_makes_the_verdict_better(n, k, most):
    k = min(k, n - 1)
    before, after = (checks.at_most(clopper_pearson(c, n, 0.05), AtMost(at_most=most).at_most) for c in (k, k + 1))
    assert ORDER.index(after) >= ORDER.index(before)


@given(b=st.integers(0, 60), c=st.integers(1, 60), both=st.integers(0, 300), margin=st.floats(0, 0.5))
def test_winning_a_lost_example_never_makes_the_comparison_worse(b, c, both, margin):
    before = Paired(both=both, only_candidate=b, only_champion=c, neither=50)
    after = Paired(both=both + 1, only_candidate=b, only_champion=c - 1, neither=50)
    verdicts = [champion.not_inferior(pairs, Margin(margin=margin), 0.05).verdict for pairs in (before, after)]
    assert ORDER.index(verdicts[1]) <= ORDER.index(verdicts[0])


@given(verdicts=st.lists(st.sampled_from(ORDER), min_size=1))
def test_the_worst_check_decides(verdicts):
    assert ORDER.index(worst(verdicts)) == max(map(ORDER.index, verdicts))


def test_no_checks_at_all_are_not_a_pass():
    assert worst([]) is Verdict.INCONCLUSIVE
