"""A workload cannot weaken the measurement under a policy that binds it; every setting is in the decision."""

from dataclasses import replace
from fractions import Fraction
from types import NoneType
from typing import get_args

import pytest

from holdfast.artifacts.documents import Feature, FeatureThreat, InputSpec, Measurement, ThreatModel, Verdict
from holdfast.errors import WorkloadError
from holdfast.steps import evidence as evidence_steps
from holdfast.workload.schema import AttackConfig, BackdoorConfig, CertifyConfig, DriftConfig, ScanConfig, Workload
from holdfast_gates.decide import decide
from holdfast_gates.measurement import AskedSettings, MeasuredWith
from holdfast_gates.policy import find, with_overrides
from holdfast_gates.report import to_markdown
from tests.gates.test_decide import line, spoil


def blamed(decision):
    return {check.name for check in decision.checks if check.verdict is not Verdict.PASS}


def asked(policy, **limits):
    """The policy with other limits on the measurement."""
    return policy.model_copy(update={"measured_with": MeasuredWith.model_validate(limits)})


OF_THE_ATTACK = {
    "clean_accuracy", "robust_accuracy", "better_than_constant", "class_recall", "robust_class_recall",
    "gradient_masking", "champion_clean", "champion_robust", "champion_class_recall",
}  # fmt: skip
OF_THE_CERTIFICATE = {"certified_accuracy", "certified_class_recall", "abstention"}


@pytest.mark.parametrize(
    ("role", "config", "checks", "key"),
    [
        ("backdoor", BackdoorConfig(anomaly_index=1_000_000), {"backdoor"}, "backdoor.anomaly_index"),
        ("backdoor", BackdoorConfig(relative_norm=1e-9), {"backdoor"}, "backdoor.relative_norm"),
        ("backdoor", BackdoorConfig(attack_success=1), {"backdoor"}, "backdoor.attack_success"),
        ("backdoor", BackdoorConfig(steps=1), {"backdoor"}, "backdoor.steps"),
        ("backdoor", BackdoorConfig(examples=10), {"backdoor"}, "backdoor.examples"),
        ("certify", CertifyConfig(alpha=0.99), OF_THE_CERTIFICATE, "certify.alpha"),
        ("certify", CertifyConfig(examples=3), OF_THE_CERTIFICATE, "certify.examples"),
        ("attack", AttackConfig(examples=20), OF_THE_ATTACK, "attack.examples"),
        ("attack", AttackConfig(second_opinion=False), OF_THE_ATTACK, "attack.second_opinion"),
        ("drift", DriftConfig(min_effect=100), {"drift"}, "drift.min_effect"),
        ("drift", DriftConfig(alpha=1e-9), {"drift"}, "drift.alpha"),
        ("drift", DriftConfig(break_share=1), {"drift"}, "drift.break_share"),
        ("drift", DriftConfig(max_rows=2), {"drift"}, "drift.max_rows"),
        ("scan", ScanConfig(epochs=1), {"poison"}, "scan.epochs"),
        ("scan", ScanConfig(folds=2), {"poison"}, "scan.folds"),
    ],
)
def test_a_setting_that_switches_a_check_off_fails_it(policy, judged, evidence, make, role, config, checks, key):
    weak = spoil(evidence, make, role, configuration=config.configuration)
    decision = decide(policy, judged, weak)
    assert decision.verdict is Verdict.FAIL
    assert blamed(decision) == checks
    reason = line(decision, min(checks)).reason
    assert reason.startswith(f"not measured as the policy asks: {key} is ")
    (shown,) = [one for one in decision.measured_with if not one.kept]
    assert (shown.name, shown.measured) == (key, config.configuration[key.partition(".")[2]])
    assert f"| {key} |" in to_markdown(decision, policy)


@pytest.mark.parametrize(
    ("threat", "key"),
    [
        ({"epsilon": Fraction(1, 1_000_000)}, "threat.epsilon"),
        ({"norm": "edits", "epsilon": Fraction(2)}, "threat.norm"),
    ],
)
def test_an_attacker_who_can_do_nothing_shows_nothing(policy, judged, evidence, threat, key):
    small = judged.model.threat.model_copy(update=threat)
    decision = decide(policy, replace(judged, model=judged.model.model_copy(update={"threat": small})), evidence)
    assert blamed(decision) == OF_THE_ATTACK
    assert f"{key} is " in line(decision, "robust_accuracy").reason
    assert [one.name for one in decision.measured_with if not one.kept] == [key]


def table(model, features, rules=()):
    spec = InputSpec(modality="tabular", shape=(len(features),), dtype="float32", features=features)
    threat = ThreatModel(norm="linf", epsilon=Fraction(1, 4), unit="standard deviations", features=rules)
    return model.model_copy(update={"input": spec, "threat": threat})


def number(name, **changes):
    return Feature(name=name, lower=0, upper=9, scale=2.0, **changes)


@pytest.mark.parametrize(
    ("features", "rules"),
    [
        ([number("a", mutable=False), number("b", mutable=False)], ()),
        ([number("a"), number("b")], [FeatureThreat(name=name, budget=Fraction(1, 10**6)) for name in "ab"]),
        ([number("a=x", mutable=False, column="a"), number("a=y", mutable=False, column="a")], ()),
    ],
)
def test_columns_that_cannot_move_are_no_attack(policy, judged, evidence, features, rules):
    still = replace(judged, model=table(judged.model, tuple(features), tuple(rules)))
    decision = decide(policy, still, evidence)
    assert "threat.changeable is 0 of" in line(decision, "robust_accuracy").reason


def test_columns_that_can_move_are_counted_once_each(policy, judged, evidence):
    # b moves by 0.1 standard deviations at the most, which is the least epsilon; c may be chosen.
    features = (number("a"), number("b"), *(number(f"c={v}", mutable=False, column="c") for v in "xyz"))
    rules = FeatureThreat(name="b", budget=Fraction(2, 10)), FeatureThreat(name="c", choose=True)
    decision = decide(policy, replace(judged, model=table(judged.model, features, rules)), evidence)
    shown = {one.name: one.measured for one in decision.measured_with}
    assert shown["threat.changeable"] == "3 of 3 columns"
    assert shown["threat.features"] == ("b: at most 1/5", "c: any value")
    assert decision.verdict is Verdict.PASS


def test_a_policy_that_names_modalities_accepts_no_other(policy, judged, evidence):
    only_text = asked(policy, least_epsilon={"text": {"edits": 1}})
    decision = decide(only_text, judged, evidence)
    assert "threat.norm is linf, asked is a norm for the modality image" in line(decision, "robust_accuracy").reason


@pytest.mark.parametrize(("tier", "verdict"), [("pr", Verdict.FAIL), ("nightly", Verdict.PASS), ("release", "pass")])
def test_a_larger_tier_is_enough_and_a_smaller_one_is_not(policy, judged, evidence, make, tier, verdict):
    made = spoil(evidence, make, "attack", tier=tier, configuration=AttackConfig(tier=tier).configuration)
    assert decide(asked(policy, attack={"tier": "nightly"}), judged, made).verdict == verdict


def test_all_held_out_rows_are_enough(policy, judged, evidence, make):
    few = replace(judged, snapshot=judged.snapshot.model_copy(update={"test_rows": 114}))
    made = spoil(evidence, make, "attack", configuration=AttackConfig(examples=114).configuration)
    assert decide(policy, few, made).verdict is Verdict.PASS
    shown = next(one for one in decide(policy, few, made).measured_with if one.name == "attack.examples")
    assert shown.required == "at least 114"


@pytest.mark.parametrize("role", ["drift", "scan", "backdoor", "attack", "certify"])
def test_a_report_that_does_not_name_its_settings_is_no_evidence(policy, judged, evidence, make, role):
    decision = decide(policy, judged, spoil(evidence, make, role, configuration={}))
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert any(f"the {role} report does not name all" in check.reason for check in decision.checks)


@pytest.mark.parametrize("value", ["much", (500,), "500"])
def test_a_setting_of_another_type_is_not_kept(policy, judged, evidence, make, value):
    configuration = AttackConfig().configuration | {"examples": value}
    assert decide(policy, judged, spoil(evidence, make, "attack", configuration=configuration)).verdict is Verdict.FAIL


def test_a_policy_that_asks_nothing_of_the_measurement_shows_it_all_the_same(policy, judged, evidence, make):
    configuration = BackdoorConfig(anomaly_index=50).configuration
    decision = decide(asked(policy), judged, spoil(evidence, make, "backdoor", configuration=configuration))
    assert decision.verdict is Verdict.PASS
    assert "| backdoor.anomaly_index | 50 | nothing |" in to_markdown(decision, policy)


def test_the_limits_of_the_default_policy_are_the_defaults_of_the_steps(policy):
    for role, step in evidence_steps().items():
        demanded = policy.measured_with.of(role).model_dump(exclude_none=True)
        if demanded:
            defaults = Workload.model_fields[step.config].default.configuration
            assert demanded == {key: defaults[key] for key in demanded}


def limits_in(field):
    return any(isinstance(kind, type) and issubclass(kind, AskedSettings) for kind in _kinds(field.annotation))


def _kinds(annotation):
    """A class, or those of a union with None."""
    return get_args(annotation) or (annotation,)


def test_every_limit_is_of_a_key_of_the_steps_section_and_every_measuring_step_has_some(policy):
    measuring = {role for role, step in evidence_steps().items() if issubclass(step.document, Measurement)}
    assert measuring == {name for name, field in MeasuredWith.model_fields.items() if limits_in(field)}
    for role in measuring:
        section = type(Workload.model_fields[evidence_steps()[role].config].default)
        (limits,) = (kind for kind in _kinds(MeasuredWith.model_fields[role].annotation) if kind is not NoneType)
        assert set(limits.model_fields) <= set(section.model_fields)
        assert limits.most | limits.up_to_all <= set(limits.model_fields)


def test_no_workload_overrides_how_it_is_measured():
    with pytest.raises(WorkloadError, match="unknown check 'measured_with'"):
        with_overrides(find("default"), {"measured_with": {"attack": 1}})


def test_a_failed_check_keeps_what_was_measured_and_names_the_weakness_first(policy, judged, evidence, make):
    configuration = BackdoorConfig(anomaly_index=1_000_000).configuration
    flagged = {"flagged": ("0",), "verdict": Verdict.FAIL, "configuration": configuration}
    check = line(decide(policy, judged, spoil(evidence, make, "backdoor", **flagged)), "backdoor")
    assert check.measured == 1
    assert check.reason.endswith("asked is at most 2; 0: size 9, anomaly index 0.50")
