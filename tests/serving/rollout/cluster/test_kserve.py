"""The KServe driver on a real object, with traffic that really moves, by revisions."""

import time

import pytest

from holdfast import registry
from holdfast.errors import RolloutError
from holdfast.kubernetes.objects import annotations
from holdfast.serving.rollout.cluster import watchdog
from holdfast.serving.rollout.cluster.kserve import (
    PERCENT,
    arms_of,
    component,
    predictor_of,
    services_in,
    shares_of,
    with_revisions,
)
from holdfast.serving.rollout.cluster.open import open_cluster, prepare
from holdfast.serving.rollout.cluster.run import TargetCluster
from holdfast.serving.rollout.cluster.store import CHAMPION, EXPIRES
from holdfast.serving.rollout.cluster.target import Target
from holdfast.serving.rollout.engine.analysis import MIN_PAIRS
from holdfast.serving.rollout.engine.controller import Pace
from holdfast.serving.rollout.step import rollout

OLD, NEW = "s3://models/sha256/" + "a" * 64, "s3://models/sha256/" + "b" * 64
FIRST, SECOND = "fraud-predictor-00001", "fraud-predictor-00002"
PACE = Pace(interval=0.1, checkpoint=0.3, pending=20, promoting=30, aftermath=0)


@pytest.fixture
def service(kube, namespace):
    """The InferenceService, as it is now."""
    return lambda: kube.get(services_in(namespace), "fraud")


@pytest.fixture
def begin(kube, operator, champion, make_target, counters):
    """A rollout whose candidate is ready, with no traffic yet."""

    def begun(decision="decision-1", put=True, target=None):
        if put:
            champion("kserve")
        cluster = open_cluster(target or make_target("kserve"), kube, decision, counters)
        prepare(cluster, 15)
        return cluster

    return begun


def until(what):
    deadline = time.monotonic() + 5
    while not what():
        assert time.monotonic() < deadline, "not within 5 s"
        time.sleep(0.02)


def test_the_candidate_becomes_a_revision_that_gets_nothing(begin, service, mesh):
    begin()
    found = service()
    assert predictor_of(found)["model"]["storageUri"] == NEW
    assert (predictor_of(found)[PERCENT], arms_of(found)) == (0, (FIRST, SECOND))
    assert shares_of(found) == {FIRST: 100, SECOND: 0}
    assert mesh.share(50) == 0


def test_preparing_twice_makes_one_revision(begin, operator):
    cluster = begin()
    cluster.driver.prepare(5)
    assert len(operator.revisions["fraud"]) == 2


def test_a_promotion_leaves_the_candidates_revision_with_everything(begin, service, mesh):
    driver = begin().driver
    driver.apply(100, False)
    driver.promote()
    found = service()
    assert PERCENT not in predictor_of(found)
    assert component(found)["latestRolledoutRevision"] == SECOND
    assert EXPIRES not in annotations(found)
    driver.apply(100, False)  # a driver that crashed before it could note the promotion does it again
    driver.promote()
    assert EXPIRES not in annotations(service())
    assert mesh.share(50) == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_the_way_back_from_all_traffic_is_by_the_revision_that_kserve_remembers(
    begin, operator, service, objects, mesh, at_once
):
    operator.remembers_at_once = at_once
    driver = begin().driver
    driver.apply(100, False)
    assert component(service())["latestRolledoutRevision"] == SECOND
    assert mesh.share(50) == 1
    driver.remove_candidate()
    until(lambda: len(operator.revisions["fraud"]) == 3)
    assert component(service())["latestRolledoutRevision"] == FIRST
    assert (mesh.share(50), objects.uri("kserve")) == (0, OLD)


def test_a_promotion_is_taken_back_too(begin, objects, mesh):
    driver = begin().driver
    driver.apply(100, False)
    driver.promote()
    driver.remove_candidate()
    assert mesh.share(50) == 0
    assert objects.uri("kserve") == OLD


def test_after_the_way_back_no_edit_lets_the_candidate_in(begin, kube, namespace, service, operator, mesh):
    driver = begin().driver
    driver.apply(25, False)
    driver.remove_candidate()
    assert CHAMPION not in annotations(service())
    until(lambda: len(operator.revisions["fraud"]) == 3)
    kube.merge(services_in(namespace), "fraud", {"spec": {"predictor": {PERCENT: None}}})
    until(lambda: shares_of(service()).get("fraud-predictor-00003") == 100)
    assert mesh.share(50) == 0


def test_after_the_watchdog_the_next_driver_gives_the_champions_predictor_back(
    begin, kube, namespace, service, objects, mesh
):
    begin().driver.apply(25, False)
    assert len(watchdog.expire(kube, namespace, lambda: time.time() + 3600)) == 1
    until(lambda: mesh.route == (0, False))
    assert objects.uri("kserve") == NEW
    again = begin(put=False)
    again.driver.remove_candidate()
    assert objects.uri("kserve") == OLD
    again.driver.remove_candidate()  # nothing is left to do
    assert shares_of(service())[FIRST] == 100


def test_the_same_candidate_once_more_needs_no_new_revision(begin, kube, namespace, operator, objects, mesh):
    cluster = begin()
    cluster.driver.apply(25, False)
    watchdog.expire(kube, namespace, lambda: time.time() + 3600)
    again = begin(put=False)
    again.driver.apply(25, False)
    assert len(operator.revisions["fraud"]) == 2
    again.driver.remove_candidate()
    assert objects.uri("kserve") == OLD


def test_a_second_rollout_begins_where_the_first_was_promoted(begin, make_target, service, mesh):
    cluster = begin()
    cluster.driver.apply(100, False)
    cluster.driver.promote()
    cluster.store.write("done", {"state": "Promoted"})
    document = make_target("kserve").model_dump(mode="json", by_alias=True, exclude_none=True)
    document["kserve"]["candidate"]["model"]["storageUri"] = NEW.replace("b", "c")
    begin("decision-2", put=False, target=Target.model_validate(document))
    assert arms_of(service()) == (SECOND, "fraud-predictor-00003")
    assert shares_of(service()) == {SECOND: 100, "fraud-predictor-00003": 0}


def test_a_predictor_that_somebody_else_put_there_is_refused_and_left(begin, kube, namespace, objects, mesh):
    driver = begin().driver
    driver.apply(25, False)
    kube.merge(services_in(namespace), "fraud", {"spec": {"predictor": {"model": {"storageUri": "s3://elsewhere"}}}})
    for act in (lambda: driver.apply(50, False), driver.promote):
        with pytest.raises(RolloutError, match="expected the target's candidate as predictor, found s3://elsewhere"):
            act()
    driver.remove_candidate()
    assert objects.uri("kserve") == "s3://elsewhere"
    assert mesh.share(50) == 0


def test_a_service_without_revisions_is_refused(kube, champion, make_target, counters, namespace):
    champion("kserve")
    raw = [{"op": "add", "path": "/status", "value": {"components": {"predictor": {"url": "http://fraud"}}}}]
    kube.patch(services_in(namespace), "fraud", raw, "status")
    cluster = open_cluster(make_target("kserve"), kube, "decision-1", counters)
    with pytest.raises(RolloutError, match="expected all traffic on one revision, found none, as without Knative"):
        prepare(cluster, 5)


def test_a_canary_of_somebody_elses_is_refused(kube, champion, make_target, counters, namespace):
    champion("kserve")
    traffic = [{"revisionName": FIRST, "percent": 90}, {"revisionName": SECOND, "percent": 10}]
    change = [{"op": "add", "path": "/status/components/predictor/traffic", "value": traffic}]
    kube.patch(services_in(namespace), "fraud", change, "status")
    cluster = open_cluster(make_target("kserve"), kube, "decision-1", counters)
    with pytest.raises(RolloutError, match="expected all traffic on one revision, found {'fraud-predictor-00001': 90"):
        prepare(cluster, 5)


def test_a_candidate_that_serves_already_is_refused(kube, operator, champion, make_target, counters, namespace):
    champion("kserve")
    kube.merge(services_in(namespace), "fraud", {"spec": {"predictor": {"model": {"storageUri": NEW}}}})
    until(lambda: operator.loaded.get("main") == NEW)
    until(lambda: component(kube.get(services_in(namespace), "fraud"))["latestRolledoutRevision"] == SECOND)
    cluster = open_cluster(make_target("kserve"), kube, "decision-1", counters)
    with pytest.raises(RolloutError, match="the target's candidate serves already"):
        prepare(cluster, 5)


def test_a_plan_with_a_shadow_needs_probes(plan, own_tracking, tmp_path, kube, make_target, counters, mesh):
    for probes in (None, {**mesh.probes(2), "counted": False}):
        place = TargetCluster(make_target("kserve", **({"probes": probes} if probes else {})), kube, counters, PACE)
        with pytest.raises(RolloutError, match="kserve copies no requests, so probes do the shadow of this plan"):
            rollout("tiny", tmp_path / "out", version=2, tracking=own_tracking, config=plan, seed=0, at=place.place())
    assert list(tmp_path.glob("*out*")) == []


def test_a_candidate_that_answers_otherwise_is_turned_back_before_any_user_meets_it(
    plan, own_tracking, tmp_path, kube, operator, champion, addressed, knative, mesh, objects
):
    mesh.candidate.label = 4
    champion("kserve")
    digest = registry.fetch(own_tracking, "tiny", 2, tmp_path / "bundle").model.digest
    place = TargetCluster(addressed("kserve", digest, metrics=knative, probes=mesh.probes(100)), kube, None, PACE)
    with mesh.clients() as bad:
        record = rollout(
            "tiny", tmp_path / "out", version=2, tracking=own_tracking, config=plan, seed=0, at=place.place()
        ).document
    assert (record.outcome, bad) == ("rolled-back", [])
    assert "candidate and champion differ in more than" in record.reason
    assert [t.state_after for t in record.transitions] == ["Shadow", "RollingBack", "RolledBack"]
    assert mesh.candidate.count == 0
    assert mesh.candidate.probed >= MIN_PAIRS
    assert objects.uri("kserve") == OLD


def test_the_labels_of_both_arms_get_the_names_of_their_revisions(make_target):
    arms = {arm: {"revision_name": f"{{{arm}}}", "app": "x"} for arm in ("champion", "candidate")}
    metrics = make_target("kserve", metrics={"prometheus": "http://p:9090", "series": "knative", **arms}).metrics
    found = with_revisions(metrics, FIRST, SECOND)
    assert found.champion == {"revision_name": FIRST, "app": "x"}
    assert found.candidate == {"revision_name": SECOND, "app": "x"}
    with pytest.raises(RolloutError, match="the revisions have no names before"):
        with_revisions(metrics, FIRST, "")
