"""What is required comes from the base branch, and what a pull request changes of it is listed."""

import pytest

from holdfast.errors import WorkloadError
from holdfast.workload.schema import read_workload
from holdfast_pipelines.pull_request.requirements import (
    FREE,
    Placed,
    changed_data,
    changed_requirements,
    required_by,
)
from tests.pipelines.pull_request.conftest import WORKLOAD


@pytest.fixture
def placed(tmp_path):
    """A workload with a text of its own, in a folder of its own."""

    def make(side="head", text=WORKLOAD):
        (tmp_path / side).mkdir(exist_ok=True)
        path = tmp_path / side / "toy.yaml"
        path.write_text(text)
        return Placed(read_workload(path), path.parent)

    return make


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ("at_least: 0.4", "at_least: 0.1", {"gate.checks.robust_accuracy.at_least"}),
        ("epsilon: 8/255", "epsilon: 1/255", {"threat.epsilon"}),
        ("norm: linf", "norm: l2", {"threat.norm"}),
        ("gate:", "attack: {examples: 5}\ngate:", {"attack.examples"}),
        ("gate:", "backdoor: {anomaly_index: 1000000}\ngate:", {"backdoor.anomaly_index"}),
        ("gate:", "certify: {alpha: 0.99}\ngate:", {"certify.alpha"}),
        ("gate:", "scan: {apply: false}\ngate:", {"scan.apply"}),
        ("name: toy", "name: other", {"name"}),
    ],
)
def test_what_a_pull_request_changes_of_the_rules_is_named_and_does_not_hold(placed, old, new, keys):
    base, head = placed("base"), placed("head", WORKLOAD.replace(old, new))
    assert {one.key for one in changed_requirements(base, head)} == keys
    assert required_by(base, head, "base").workload == base.workload
    assert required_by(base, head, "head").workload == head.workload


def test_how_a_model_is_made_is_the_heads(placed):
    base = placed("base")
    head = placed("head", WORKLOAD.replace("gate:", "train: {epochs: 3}\ngate:").replace("cnn", "mlp"))
    required = required_by(base, head, "base").workload
    assert (required.train.epochs, required.network.architecture) == (3, "mlp")
    assert changed_requirements(base, head) == ()


def test_a_section_of_tomorrow_is_required_until_it_is_named_free():
    assert set(FREE) == {"modality", "data", "network", "schema_", "train", "decision"}


def test_a_policy_in_the_repository_is_the_base_branchs_by_its_content(placed):
    text = WORKLOAD.partition("gate:")[0] + "gate: {policy: ours.yaml}\n"
    base, head = placed("base", text), placed("head", text)
    checks = "champion_clean: {margin: 0.1}, robust_accuracy: {at_least: SHARE}"
    for side, share in ((base, "0.95"), (head, "0.1")):
        policy = f"name: ours\nalpha: 0.05\nchecks: {{{checks}}}\n".replace("SHARE", share)
        (side.folder / "ours.yaml").write_text(policy)
    (one,) = changed_requirements(base, head)
    assert (one.key, one.base, one.head) == ("gate.checks.robust_accuracy.at_least", "0.95", "0.1")
    assert required_by(base, head, "base").policy.checks.robust_accuracy.at_least == 0.95


def test_other_examples_are_named(placed):
    base, head = placed("base"), placed("head", WORKLOAD.replace("digits.npz", "digits.npz, holdout: 0.5"))
    (one,) = changed_data(base, head)
    assert (one.key, one.base, one.head) == ("data.holdout", "0.2", "0.5")


def test_every_pull_request_is_measured_with_the_small_tier(placed):
    base = placed("base", WORKLOAD.replace("gate:", "attack: {tier: release}\ngate:"))
    assert required_by(base, placed(), "base").workload.attack.tier == "pr"
    assert {one.key for one in changed_requirements(base, placed())} == {"attack.tier"}


def test_rules_that_fit_no_head_are_one_line(placed):
    head = placed("head", WORKLOAD.replace("image", "text").replace("cnn", "text").replace("linf", "edits")
                  .replace("8/255", "2").replace("source: digits.npz", "source: digits.npz, text: t"))  # fmt: skip
    with pytest.raises(WorkloadError, match="base branch's requirements do not fit the head's workload"):
        required_by(placed("base"), head, "base")


def test_a_policy_that_asks_for_more_attacks_asks_a_pull_request_for_the_small_tier_and_records_it(placed):
    text = WORKLOAD.partition("gate:")[0] + "gate: {policy: ours.yaml}\n"
    base, head = placed("base", text), placed("head", text)
    asked = "measured_with: {attack: {tier: release, examples: 300}}"
    (base.folder / "ours.yaml").write_text(f"name: ours\nalpha: 0.05\n{asked}\nchecks: {{drift: {{}}}}\n")
    policy = required_by(base, head, "base").policy
    assert (policy.measured_with.attack.tier, policy.measured_with.attack.examples) == ("pr", 300)
    assert policy.overridden == {"measured_with": {"attack.tier": "pr"}}
