"""The plan of a rollout: what the workload asks, over what the policy of the gate's decision asks of everybody."""

import json

import pytest

from holdfast.artifacts.folder import Ref
from holdfast.errors import IntegrityError, WorkloadError
from holdfast.serving.rollout.matchup import policy_plan
from holdfast.workload.schema import RolloutPlan


def decision(make_bundle, policy) -> Ref:
    return Ref(make_bundle(seed=0, policy=policy) / "decision")


def test_the_policy_of_the_decision_gives_what_the_workload_leaves_out(make_bundle):
    policy = policy_plan(decision(make_bundle, {"name": "mine", "rollout": {"steps": [1, 100], "max_errors": 0.01}}))
    plan = RolloutPlan(steps=(10, 50, 100), margin=0.02).over(policy)
    assert (plan.steps, plan.max_errors, plan.margin) == ((10, 50, 100), 0.01, 0.02)
    assert plan.shadow_requests == RolloutPlan().shadow_requests


@pytest.mark.parametrize("policy", [None, {"name": "mine"}])
def test_without_such_a_section_the_workload_alone_decides(make_bundle, policy):
    found = policy_plan(decision(make_bundle, policy))
    assert found.model_dump() == {}
    assert RolloutPlan(margin=0.02).over(found) == RolloutPlan(margin=0.02)


def test_a_section_that_was_altered_after_the_decision_is_refused(make_bundle):
    ref = decision(make_bundle, {"rollout": {"max_errors": 0.01}})
    (ref.folder / "policy.json").write_text(json.dumps({"rollout": {"max_errors": 0.99}}))
    with pytest.raises(IntegrityError, match="the file was altered after the artifact was written"):
        policy_plan(ref)


def test_a_key_that_no_plan_has_is_an_error_of_one_line(make_bundle):
    with pytest.raises(
        WorkloadError, match=r"policy.json: rollout:1: unknown key 'max_error'; .*'max_errors'"
    ) as caught:
        policy_plan(decision(make_bundle, {"rollout": {"max_error": 0.01}}))
    assert "\n" not in str(caught.value)
