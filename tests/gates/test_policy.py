import hashlib
import json

import pytest

from holdfast.errors import WorkloadError
from holdfast.steps import ON_REQUEST
from holdfast.workload.schema import GateConfig
from holdfast_gates.policy import Policy, find, packaged, resolve, with_overrides
from holdfast_gates.rules import RULES


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_the_default_policy_asks_every_check_but_those_of_steps_that_are_made_on_request():
    policy, on_request = find("default"), {step.document for step in ON_REQUEST}
    left_out = {name for name in type(policy.checks).model_fields if getattr(policy.checks, name) is None}
    assert left_out == {name for name, rule in RULES.items() if rule.reads in on_request}


def test_every_packaged_policy_is_valid_and_named_after_its_file():
    assert packaged()
    assert all(find(name).name == name for name in packaged())


def test_an_unknown_key_is_refused_with_line_and_the_key_meant(tmp_path):
    path = write(tmp_path, "name: mine\nalpha: 0.05\nchecks:\n  robust_acuracy: {at_least: 0.5}\n")
    with pytest.raises(WorkloadError, match=r"mine.yaml:4: unknown key 'checks.robust_acuracy'; did you mean 'robust_"):
        find(str(path))


def test_an_unknown_threshold_is_refused_with_the_key_meant(tmp_path):
    path = write(tmp_path, "name: mine\nalpha: 0.05\nchecks:\n  robust_accuracy: {at_leest: 0.5}\n")
    with pytest.raises(WorkloadError, match=r"mine.yaml:4: .*did you mean 'at_least'"):
        find(str(path))


def test_a_check_without_thresholds_is_not_silently_off(tmp_path):
    path = write(tmp_path, "name: mine\nalpha: 0.05\nchecks:\n  drift:\n")
    with pytest.raises(WorkloadError, match=r"mine.yaml:4: .*needs its thresholds"):
        find(str(path))


@pytest.mark.parametrize("text", ["name: mine\nalpha: 0.05\nchecks: {}\n", "name: mine\nalpha: .nan\nchecks: {}\n"])
def test_a_policy_that_asks_nothing_or_not_a_number_is_refused(tmp_path, text):
    with pytest.raises(WorkloadError, match="mine.yaml"):
        find(str(write(tmp_path, text)))


def test_a_threshold_outside_zero_and_one_is_refused(tmp_path):
    path = write(tmp_path, "name: mine\nalpha: 0.05\nchecks:\n  robust_accuracy: {at_least: 50}\n")
    with pytest.raises(WorkloadError, match="less than or equal to 1"):
        find(str(path))


def test_an_unknown_policy_suggests_the_one_meant():
    with pytest.raises(WorkloadError, match="did you mean 'default'"):
        find("defualt")


def test_a_policy_file_is_found_beside_the_workfind(tmp_path):
    write(tmp_path, "name: mine\nalpha: 0.05\nchecks:\n  drift: {}\n")
    assert resolve(GateConfig(policy="mine.yaml"), folder=tmp_path).name == "mine"


def test_an_override_replaces_a_threshold_and_is_recorded():
    policy = with_overrides(find("default"), {"robust_accuracy": {"at_least": 0.4}})
    assert policy.checks.robust_accuracy.at_least == 0.4
    assert policy.overridden == {"robust_accuracy": {"at_least": 0.4}}
    assert policy.digest != find("default").digest
    assert find("default").checks.robust_accuracy.at_least == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"robust": {"at_least": 0.4}}, "unknown check 'robust'; did you mean 'robust_accuracy'"),
        (
            {"robust_accuracy": {"atleast": 0.4}},
            "unknown threshold of robust_accuracy 'atleast'; did you mean 'at_least'",
        ),
        ({"robust_accuracy": {"at_least": float("nan")}}, "robust_accuracy.at_least"),
        ({"robust_accuracy": {"at_least": 2}}, "less than or equal to 1, found '2'"),
        ({"drift": {"worst_accepted": "fail"}}, "'pass' or 'inconclusive', found 'fail'"),
    ],
)
def test_a_meaningless_override_is_refused(override, message):
    with pytest.raises(WorkloadError, match=message):
        with_overrides(find("default"), override)


def test_the_policy_in_effect_travels_as_json():
    policy = with_overrides(find("default"), {"abstention": {"at_most": 0.5}})
    again = find(policy.to_json())
    assert again == policy
    assert again.digest == hashlib.sha256(policy.to_json().encode()).hexdigest()


def test_json_with_an_unknown_key_is_refused_too():
    value = json.loads(find("default").to_json())
    value["alfa"] = 0.1
    with pytest.raises(WorkloadError, match="did you mean 'alpha'"):
        find(json.dumps(value))


def test_the_order_of_keys_does_not_change_the_digest(tmp_path):
    one = write(tmp_path, "name: mine\nalpha: 0.05\nchecks:\n  drift: {}\n  backdoor: {}\n")
    first = find(str(one)).digest
    one.write_text("alpha: 0.05\nchecks: {backdoor: {}, drift: {worst_accepted: pass}}\nname: mine\n")
    assert Policy.model_validate(json.loads(find(str(one)).to_json())).digest == first


def test_the_gate_section_of_a_workload_is_taken_as_json():
    section = GateConfig(policy="default", override={"abstention": {"at_most": 0.5}})
    assert find(section.model_dump_json()) == resolve(section)


def test_broken_json_is_refused_in_one_line():
    with pytest.raises(WorkloadError, match="--policy: expected JSON, found"):
        find('{"name": ')


TEAMS = "name: mine\nalpha: 0.05\nchecks:\n  drift: {}\n"


def test_limits_of_rollouts_travel_with_the_policy_and_only_those_that_were_asked(tmp_path):
    policy = find(str(write(tmp_path, TEAMS + "rollout: {steps: [1, 100], max_errors: 0.01}\n")))
    assert json.loads(policy.to_json())["rollout"] == {"steps": [1, 100], "max_errors": 0.01}
    again = find(policy.to_json())
    assert (again.digest, again.rollout.model_fields_set) == (policy.digest, {"steps", "max_errors"})
    assert resolve(GateConfig(policy="mine.yaml", override={"drift": {}}), folder=tmp_path).rollout == policy.rollout


def test_a_policy_without_limits_of_rollouts_is_the_same_bytes_as_before(tmp_path):
    assert "rollout" not in json.loads(find(str(write(tmp_path, TEAMS))).to_json())


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("rollout: {max_error: 0.01}", r"mine.yaml:5: unknown key 'rollout.max_error'; did you mean 'max_errors'"),
        ("rollout:", r"mine.yaml:5: rollout: .*expected a value, found none; leave the key out"),
        ("rollout: {steps: [50, 10]}", r"mine.yaml:5: rollout: .*expected rising percentages"),
        ("rollout: {margin: 2}", r"mine.yaml:5: rollout.margin: .*less than 1"),
    ],
)
def test_a_mistake_in_limits_of_rollouts_is_one_line_with_file_and_line(tmp_path, section, message):
    with pytest.raises(WorkloadError, match=message) as caught:
        find(str(write(tmp_path, TEAMS + section + "\n")))
    assert "\n" not in str(caught.value)
