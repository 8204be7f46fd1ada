"""Which policies count: by what they ask, never by their name."""

import json

import pytest

from holdfast.artifacts import policies
from holdfast.artifacts.documents import Check, GateDecision, Verdict
from holdfast.artifacts.folder import save
from holdfast.artifacts.policies import PolicyList, canonical, policy_digest, shipped_digests
from holdfast.workload.schema import GateConfig
from holdfast_gates.policy import Policy, find, packaged, resolve, with_overrides

SHIPPED = PolicyList()


def counts(policy, listed=SHIPPED, text=None):
    return listed.has(policy.digest, (text or policy.to_json()).encode())


def edited(**changes):
    """The default policy with other keys, as JSON of its own digest."""
    text = canonical({**json.loads(find("default").to_json()), **changes})
    return policy_digest(text), text.encode()


def test_the_policies_that_ship_count():
    assert shipped_digests() == {find(name).digest: name for name in packaged()}
    assert counts(find("default"))
    assert SHIPPED.has(find("default").digest, None)


def test_a_policy_that_is_only_named_default_does_not_count():
    one = Policy.model_validate({"name": "default", "alpha": 0.05, "checks": {"drift": {}}})
    assert not counts(one)


def test_what_a_workload_overrides_of_a_policy_that_ships_counts():
    override = {"robust_accuracy": {"at_least": 0.4}, "backdoor": {"worst_accepted": "inconclusive"}}
    assert counts(with_overrides(find("default"), override))
    assert counts(resolve(GateConfig(override=override, allow_new_contract=True)))


def test_an_override_counts_only_where_the_policy_is_at_hand():
    policy = with_overrides(find("default"), {"robust_accuracy": {"at_least": 0.4}})
    assert not SHIPPED.has(policy.digest, None)
    assert not SHIPPED.has(policy.digest, find("default").to_json().encode())


def test_a_check_that_the_policy_has_more_counts_where_it_is_listed():
    more = with_overrides(find("default"), {"extraction_agreement": {"at_queries": 1000, "at_most": 0.8}})
    assert counts(more)
    hidden = more.model_copy(update={"overridden": {}})
    assert not counts(hidden)
    weaker = with_overrides(more, {"clean_accuracy": {"at_least": 0.1}})
    assert not counts(weaker.model_copy(update={"overridden": more.overridden}))


CHECKS = json.loads(find("default").to_json())["checks"]


@pytest.mark.parametrize(
    "changes",
    [
        {"checks": {"drift": CHECKS["drift"]}},
        {"checks": {**CHECKS, "clean_accuracy": {**CHECKS["clean_accuracy"], "at_least": 0.1}}},
        {"checks": {**CHECKS, "clean_accuracy": {**CHECKS["clean_accuracy"], "applies_to": []}}},
        {"alpha": 0.49},
        {"measured_with": {}},
        {"measured_with": {}, "overridden": {"measured_with": {}}},
        {"measured_with": {}, "overridden": {"policy": {"measured_with": {}}}},
        {"alpha": 0.49, "overridden": {"policy": {"alpha": 0.49}}},
        {"checks": {}, "overridden": {"policy": {"checks": {}}}},
        {"overridden": {"no_such_check": {"at_least": 0}}},
        {"checks": None, "overridden": {"no_such_check": {"at_least": 0}}},
        {"checks": {**CHECKS, "x": 1}, "overridden": {"x": {}}},
        {"checks": {"x": {}}, "overridden": {"x": {}}},
        {"checks": {**CHECKS, "policy": {}}, "overridden": {"policy": {}}},
        {"overridden": [["clean_accuracy", {}]]},
        {"overridden": {"clean_accuracy": "at_least"}},
        {"overridden": None},
        {"name": "ours"},
        {"more": 1},
    ],
)
def test_no_other_difference_counts_as_an_override(changes):
    assert not SHIPPED.has(*edited(**changes))


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"[" * 100_000, b'"default"', b"\xff\xfe"])
def test_what_is_no_policy_does_not_count(text):
    assert not SHIPPED.has(policy_digest("x"), text)


def test_a_text_with_a_key_twice_is_not_canonical():
    text = find("default").to_json().replace('"name":"default"', '"name":"ours","name":"default"')
    assert not SHIPPED.has(policy_digest(text), text.encode())


def test_a_list_of_digests_has_these_and_no_others():
    ours = Policy.model_validate({"name": "ours", "alpha": 0.05, "checks": {"drift": {}}})
    only_ours = PolicyList(frozenset({ours.digest}), shipped=False)
    assert counts(ours, only_ours)
    assert not counts(find("default"), only_ours)
    assert counts(find("default"), PolicyList(frozenset({ours.digest})))


def decision(tmp_path, policy, **files):
    made = GateDecision(
        name="toy", policy=policy.digest, policy_name=policy.name, alpha=0.05,
        checks=(Check(name="x", required="x", verdict=Verdict.PASS),), verdict=Verdict.PASS,
    )  # fmt: skip
    return save(tmp_path / "decision", made, files)


def test_the_policy_of_a_decision_is_read_from_its_folder(tmp_path):
    policy = with_overrides(find("default"), {"robust_accuracy": {"at_least": 0.4}})
    made = decision(tmp_path, policy, **{policies.POLICY: policy.to_json().encode() + b"\n"})
    assert SHIPPED.has_that_of(made)
    assert not SHIPPED.has_that_of(decision(tmp_path / "bare", policy))


def test_a_huge_policy_is_not_read(tmp_path):
    policy = with_overrides(find("default"), {"robust_accuracy": {"at_least": 0.4}})
    padded = policy.to_json().encode() + b" " * policies.MAX_POLICY_BYTES
    assert not SHIPPED.has_that_of(decision(tmp_path, policy, **{policies.POLICY: padded}))
