"""One plan, as a file, on every driver: a version from the registry is rolled out, its record is the same kind."""

import pytest

from holdfast import registry
from holdfast.errors import RefusedError
from holdfast.serving.rollout.cluster.run import TargetCluster
from holdfast.serving.rollout.cluster.seldon_v1 import deployments_in, predictors
from holdfast.serving.rollout.cluster.table import DRIVERS
from holdfast.serving.rollout.engine.controller import Pace
from holdfast.serving.rollout.step import rollout

pytestmark = pytest.mark.usefixtures("one_registry_worker")
PACE = Pace(interval=0.1, checkpoint=0.3, pending=20, promoting=30, aftermath=0)


@pytest.mark.parametrize("driver", ["envoy", *DRIVERS])
def test_one_plan_runs_on_every_driver(driver, plan, own_tracking, tmp_path, request):
    out = tmp_path / "rollout"
    if driver == "envoy":
        artifact = rollout("tiny", out, version=2, tracking=own_tracking, config=plan, seed=0)
    else:
        digest = registry.fetch(own_tracking, "tiny", 2, tmp_path / "bundle").model.digest
        place = request.getfixturevalue("placed")(driver, digest, PACE)
        with request.getfixturevalue("mesh").clients() as bad:
            artifact = rollout("tiny", out, version=2, tracking=own_tracking, config=plan, seed=0, at=place.place())
        assert bad == []
    record = artifact.document
    assert (record.outcome, record.verdict, record.requests_failed) == ("promoted", "pass", 0), record.reason
    assert [t.state_after for t in record.transitions] == [
        "Shadow", "Canary 20 %", "Canary 100 %", "Promoting", "Promoted",
    ]  # fmt: skip
    assert registry.aliases(own_tracking, "tiny")["champion"] == 2
    assert {"journal.jsonl", "log.jsonl", "timeline.json"} <= set(record.files)


def test_a_target_that_serves_other_bytes_is_refused(
    plan, own_tracking, tmp_path, kube, operator, champion, make_target, counters, namespace
):
    champion("seldon-v1")
    place = TargetCluster(make_target("seldon-v1"), kube, counters, PACE)
    with pytest.raises(RefusedError, match="expected the candidate's address to hold the digest of tiny version 2"):
        rollout("tiny", tmp_path / "rollout", version=2, tracking=own_tracking, config=plan, seed=0, at=place.place())
    assert len(predictors(kube.get(deployments_in(namespace), "fraud"))) == 1


@pytest.mark.parametrize("where", ["beside the address", "in one of two addresses"])
def test_a_digest_elsewhere_than_in_every_address_does_not_vouch_for_the_bytes(
    where, plan, own_tracking, tmp_path, kube, operator, champion, make_target, counters
):
    champion("seldon-v1")
    digest = registry.fetch(own_tracking, "tiny", 2, tmp_path / "bundle").model.digest
    target = make_target("seldon-v1")
    graph = target.seldon_v1.candidate.graph
    child = {"name": "second", "modelUri": f"s3://models/sha256/{digest}"}
    spoiled = {
        **graph,
        "name": f"m-{digest[:8]}",
        "parameters": [{"name": "digest", "value": digest, "type": "STRING"}],
    }
    if where == "in one of two addresses":
        spoiled = {**graph, "children": [child]}
    candidate = target.seldon_v1.candidate.model_copy(update={"graph": spoiled})
    section = target.seldon_v1.model_copy(update={"candidate": candidate})
    place = TargetCluster(target.model_copy(update={"seldon_v1": section}), kube, counters, PACE)
    with pytest.raises(RefusedError, match="expected the candidate's address to hold the digest"):
        rollout("tiny", tmp_path / "rollout", version=2, tracking=own_tracking, config=plan, seed=0, at=place.place())
