"""Probes on a cluster: one row to both arms, in addition to the users' requests, compared as on one machine."""

import pytest

from holdfast import registry
from holdfast.errors import RolloutError
from holdfast.serving.rollout.cluster.live_answers import LiveAnswers
from holdfast.serving.rollout.cluster.run import TargetCluster
from holdfast.serving.rollout.contract.counters import Arm, Reading
from holdfast.serving.rollout.engine.analysis import MIN_PAIRS
from holdfast.serving.rollout.engine.controller import Pace
from holdfast.serving.rollout.step import rollout

pytestmark = pytest.mark.usefixtures("one_registry_worker")
BOTH = pytest.mark.parametrize("version", ["seldon-v1", "seldon-v2"])
PACE = Pace(interval=0.1, checkpoint=0.3, pending=20, promoting=30, aftermath=0)


@pytest.fixture
def start(plan, own_tracking, tmp_path, kube, operator, champion, counters, mesh, addressed, no_child_left):
    """Rolls version 2 out with probes; no client may lose an answer."""

    def run(version, per_second=100, probes=None):
        champion(version)
        digest = registry.fetch(own_tracking, "tiny", 2, tmp_path / "bundle").model.digest
        target = addressed(version, digest, probes=probes or mesh.probes(per_second))
        place, out = TargetCluster(target, kube, counters, PACE), tmp_path / "rollout"
        with mesh.clients() as bad:
            artifact = rollout("tiny", out, version=2, tracking=own_tracking, config=plan, seed=0, at=place.place())
        assert (bad, no_child_left()) == ([], [])
        return artifact

    return run


@BOTH
def test_a_candidate_that_agrees_is_promoted_and_every_step_waited_for_pairs(start, mesh, version):
    record = start(version).document
    assert (record.outcome, record.requests_failed) == ("promoted", 0), record.reason
    leaving = next(t for t in record.transitions if t.state_before == "Shadow")
    assert leaving.evidence["pairs"] >= MIN_PAIRS
    assert leaving.evidence["disagreements"] == 0
    assert min(mesh.stable.probed, mesh.candidate.probed) >= MIN_PAIRS


@BOTH
def test_a_candidate_that_says_otherwise_is_turned_back_before_any_user_meets_it(start, mesh, version):
    mesh.candidate.label = 4
    record = start(version).document
    assert record.outcome == "rolled-back"
    assert "candidate and champion differ in more than" in record.reason
    assert [t.state_after for t in record.transitions] == ["Shadow", "RollingBack", "RolledBack"]
    assert mesh.route == (0, False)


def test_a_candidate_without_a_whole_answer_is_turned_back(start, mesh):
    mesh.candidate.label = 11  # no class of this model
    record = start("seldon-v1").document
    assert record.outcome == "rolled-back"
    assert "probes in a row without a whole answer" in record.reason


def test_two_addresses_of_one_arm_compare_nothing_and_are_refused(start, mesh, kube, namespace):
    found = mesh.probes(50)
    both = {"champion": found["champion"], "candidate": {**found["champion"], "headers": {"x-any": "1"}}}
    with pytest.raises(RolloutError, match="expected two models, found version stable as either arm"):
        start("seldon-v1", probes=both)
    assert mesh.route == (0, False)


def test_a_champion_that_speaks_another_protocol_is_refused(start, mesh):
    mesh.stable.label = "three"
    with pytest.raises(RolloutError, match="expected the champion's label and probabilities, found shape: "):
        start("seldon-v1")


class Counting:
    """A provider that cannot tell live answers from others."""

    def __init__(self):
        self.answered = 0

    def read(self):
        return Reading(candidate=Arm(self.answered))


def test_answers_to_probes_are_no_users_where_the_metrics_count_both():
    provider, probed = Counting(), 0
    split = LiveAnswers(provider, probed=lambda: probed)
    provider.answered, probed = 50, 20
    assert (split.read().live, split.read().mirrored) == (0, 50)
    split.note(None, 5)
    provider.answered, probed = 70, 32
    assert (split.read().live, split.read().mirrored) == (8, 62)
    probed = 40  # known at once, while the counters are a scrape old
    assert (split.read().live, split.read().mirrored) == (8, 62)
    provider.answered = 100
    assert (split.read().live, split.read().mirrored) == (30, 70)
