"""Drivers on real objects, with traffic that really moves: what holds for all, and for Seldon's alone."""

import time

import pytest

from holdfast.errors import FencedError, RolloutError
from holdfast.kubernetes.api import MissingError
from holdfast.kubernetes.objects import annotations, moment
from holdfast.serving.rollout.cluster.open import open_cluster, prepare
from holdfast.serving.rollout.cluster.seldon_v1 import SeldonV1, deployments_in, predictors
from holdfast.serving.rollout.cluster.seldon_v2 import experiments_in, models_in
from holdfast.serving.rollout.cluster.store import CHAMPION, EXPIRES
from holdfast.serving.rollout.cluster.table import DRIVERS

BOTH = pytest.mark.parametrize("version", ["seldon-v1", "seldon-v2"])
EVERY = pytest.mark.parametrize("version", list(DRIVERS))
OLD, NEW = "s3://models/sha256/" + "a" * 64, "s3://models/sha256/" + "b" * 64


@pytest.fixture
def begin(kube, operator, champion, make_target, counters):
    """A rollout whose candidate is ready, with no traffic yet."""

    def begun(version, **more):
        champion(version)
        target = make_target(version, **more)
        cluster = open_cluster(target, kube, "decision-1", counters)
        prepare(cluster, 15)
        if version == "seldon-v2":
            cluster.driver.steady = 0.2
        return cluster

    return begun


def apply(driver, mesh, weight, shadow):
    """v1 returns when routes say so; v2's conditions can be older than the change, so here traffic is waited for."""
    driver.apply(weight, shadow)
    if isinstance(driver, SeldonV1):
        assert mesh.route == (weight, shadow)
    until(lambda: mesh.route == (weight, shadow and driver.mirrors))


def until(what):
    deadline = time.monotonic() + 5
    while not what():
        assert time.monotonic() < deadline, "not within 5 s"
        time.sleep(0.02)


def names_of(kube, namespace):
    return [item["name"] for item in predictors(kube.get(deployments_in(namespace), "fraud"))]


@EVERY
def test_weights_move_real_traffic_and_come_back(begin, mesh, version):
    driver = begin(version).driver
    assert mesh.share(50) == 0
    apply(driver, mesh, 50, False)
    # 400 requests at 50 %: outside of 0.35 to 0.65 once in 1e9 runs (binomial tail).
    assert 0.35 < mesh.share(400) < 0.65
    apply(driver, mesh, 100, False)
    assert mesh.share(50) == 1
    driver.remove_candidate()
    assert mesh.share(50) == 0


@BOTH
def test_a_shadow_sees_every_request_and_no_client_sees_it(begin, mesh, version):
    driver = begin(version).driver
    apply(driver, mesh, 0, True)
    assert set(mesh.send(40)) == {(200, "stable")}
    until(lambda: mesh.candidate.count == 40)
    mesh.candidate.fail = True
    assert set(mesh.send(40)) == {(200, "stable")}


@BOTH
def test_from_shadow_to_live_the_answers_are_told_apart(begin, mesh, version):
    driver = begin(version).driver
    apply(driver, mesh, 0, True)
    mesh.send(30)
    until(lambda: driver.observe().mirrored == 30)
    apply(driver, mesh, 100, False)
    mesh.send(20)
    until(lambda: driver.observe().candidate.timed == 50)
    seen = driver.observe()
    assert (seen.mirrored, seen.live, seen.routed, seen.candidate.failed) == (30, 20, 50, 0)
    assert seen.weight == (100 if version == "seldon-v1" else None)


@BOTH
def test_where_the_router_does_not_say_they_are_told_apart_by_when_they_came(begin, make_target, kube, mesh, version):
    cluster = begin(version)
    provider = cluster.driver.provider
    chosen = provider.metrics.set.model_copy(update={"mirrored": None})
    provider.metrics = provider.metrics.model_copy(update={"series": chosen})
    apply(cluster.driver, mesh, 0, True)
    mesh.send(30)
    until(lambda: cluster.driver.observe().mirrored == 30)
    apply(cluster.driver, mesh, 100, False)
    mesh.send(20)
    until(lambda: cluster.driver.observe().live == 20)
    after = open_cluster(make_target(version), kube, "decision-1", provider).driver
    seen = after.observe()  # the mark outlives the driver that set it
    assert (seen.mirrored, seen.live) == (30, 20)


@BOTH
def test_a_promotion_gives_stable_the_candidates_model_and_then_drops_the_candidate(
    begin, kube, namespace, operator, objects, mesh, version
):
    driver = begin(version).driver
    apply(driver, mesh, 100, False)
    driver.promote()
    assert objects.uri(version) == operator.loaded["main"] == NEW
    assert mesh.share(20) == 0
    driver.apply(100, False)  # a driver that crashed before it could note the promotion does it again
    driver.promote()
    assert objects.uri(version) == NEW
    if version == "seldon-v1":
        assert names_of(kube, namespace) == ["main"]
    else:
        with pytest.raises(MissingError):
            kube.get(experiments_in(namespace), "fraud")


@BOTH
def test_a_promotion_that_is_aborted_gives_stable_its_own_model_back(begin, operator, objects, mesh, version):
    driver = begin(version).driver
    apply(driver, mesh, 100, False)
    operator.unready.add("main")
    driver.settle = 1.0
    with pytest.raises(RolloutError, match="the change is not in effect after 1 s"):
        driver.promote()
    assert objects.uri(version) == NEW
    operator.unready.clear()
    operator.look()
    driver.settle = 5.0
    driver.remove_candidate()
    assert objects.uri(version) == OLD
    assert mesh.share(20) == 0
    assert CHAMPION not in annotations(objects.home(version))


@EVERY
def test_a_candidate_that_is_not_ready_gets_no_traffic(begin, crash, mesh, version):
    driver = begin(version).driver
    crash(version)
    until(lambda: not driver.health().candidate)
    with pytest.raises(RolloutError, match="cannot take more traffic"):
        driver.apply(5, False)
    assert mesh.share(20) == 0
    assert driver.health().champion


def test_v1_a_crash_looping_candidate_freezes_weights_but_not_its_removal(begin, operator, mesh):
    driver = begin("seldon-v1").driver
    apply(driver, mesh, 50, False)
    operator.unready.add("candidate")
    operator.look()
    driver.settle = 1.0
    until(lambda: not driver.health().candidate)
    with pytest.raises(RolloutError, match="routes with candidate 50 %, mirror False; not ready, which holds routes"):
        driver.apply(0, False)
    assert mesh.share(200) > 0.2  # the trap: traffic 0 did not take it out
    driver.remove_candidate()
    assert mesh.share(50) == 0


def test_v1_a_leftover_of_another_model_is_replaced_and_an_intruder_refused(begin, kube, namespace, operator):
    driver = begin("seldon-v1").driver
    other = {"op": "add", "path": "/spec/predictors/1/graph/modelUri", "value": "s3://elsewhere"}
    kube.patch(deployments_in(namespace), "fraud", [other])
    driver.prepare(10)
    assert operator.loaded["candidate"] == NEW
    driver.apply(10, False)
    kube.patch(deployments_in(namespace), "fraud", [other])
    with pytest.raises(RolloutError, match="expected the target's model in 'candidate', found .'s3://elsewhere'"):
        driver.apply(20, False)
    with pytest.raises(RolloutError, match="cannot promote: the target's candidate is not there"):
        driver.promote()
    driver.remove_candidate()


def test_v1_the_webhooks_rules_hold_before_anything_is_sent(begin, kube, namespace):
    driver = begin("seldon-v1").driver
    third = {"name": "third", "traffic": 7, "graph": {"name": "classifier", "modelUri": OLD}}
    kube.patch(deployments_in(namespace), "fraud", [{"op": "add", "path": "/spec/predictors/-", "value": third}])
    with pytest.raises(RolloutError, match=r"expected traffic that adds up to 100, found \[95, 5, 7\]"):
        driver.apply(5, False)


def test_v1_a_predictor_is_found_by_name_wherever_it_stands(begin, kube, namespace, mesh):
    driver = begin("seldon-v1").driver
    here = predictors(kube.get(deployments_in(namespace), "fraud"))
    turned = [{"op": "replace", "path": "/spec/predictors", "value": here[::-1]}]
    kube.patch(deployments_in(namespace), "fraud", turned)
    apply(driver, mesh, 100, False)
    assert mesh.share(20) == 1
    driver.remove_candidate()
    assert names_of(kube, namespace) == ["main"]


def test_v2_a_model_of_that_name_with_another_content_is_refused(begin, kube, namespace):
    driver = begin("seldon-v2").driver
    kube.merge(models_in(namespace), "fraud-next", {"spec": {"storageUri": "s3://elsewhere"}})
    with pytest.raises(RolloutError, match="expected the target's Model, found one of 's3://elsewhere'"):
        driver.apply(0, True)


@EVERY
def test_the_expiry_is_set_with_traffic_renewed_in_time_and_gone_without(begin, kube, objects, mesh, version):
    driver = begin(version).driver
    kind = objects.lease(version)
    now = time.time()
    driver.wall = lambda: now
    apply(driver, mesh, 0, True)
    first = kube.get(kind, "fraud")
    assert moment(annotations(first)[EXPIRES]) == pytest.approx(now + 60, abs=1)
    now += 20
    apply(driver, mesh, 0, True)
    assert annotations(kube.get(kind, "fraud"))[EXPIRES] == annotations(first)[EXPIRES]
    now += 20
    apply(driver, mesh, 0, True)
    assert moment(annotations(kube.get(kind, "fraud"))[EXPIRES]) == pytest.approx(now + 60, abs=1)
    driver.remove_candidate()
    assert not any(EXPIRES in annotations(item) for item in kube.list(kind))


@EVERY
def test_a_second_driver_takes_over_and_the_first_can_change_nothing(
    begin, kube, objects, make_target, counters, version
):
    first = begin(version)
    first.driver.apply(10, False)
    first.store.write("intent", {"state": "Canary", "step": 1})
    second = open_cluster(make_target(version), kube, "decision-1", counters)
    assert second.store.fence > first.store.fence
    assert second.store.state == {"state": "Canary", "step": 1}
    kinds = (objects.lease(version), type(second.driver).home(make_target(version))[0])

    before = [item["metadata"]["resourceVersion"] for kind in kinds for item in kube.list(kind)]
    for act in (
        lambda: first.driver.apply(50, False),
        lambda: first.driver.apply(0, False),
        first.driver.remove_candidate,
        first.driver.promote,
        lambda: first.store.write("checkpoint", {"state": "Canary", "step": 2}),
    ):
        with pytest.raises(FencedError, match="another driver has taken over"):
            act()
    assert before == [item["metadata"]["resourceVersion"] for kind in kinds for item in kube.list(kind)]
    second.driver.apply(20, False)
    second.driver.remove_candidate()


@EVERY
def test_no_two_rollouts_at_once_and_none_again_under_the_same_decision(begin, kube, make_target, counters, version):
    first = begin(version)
    first.store.write("intent", {"state": "Canary"})
    with pytest.raises(RolloutError, match="another rollout is under way"):
        open_cluster(make_target(version), kube, "decision-2", counters)
    first.store.write("done", {"state": "RolledBack"})
    assert open_cluster(make_target(version), kube, "decision-1", counters).store.state == {"state": "RolledBack"}
    again = open_cluster(make_target(version), kube, "decision-2", counters)
    assert again.store.state is None
    again.store.write("done", {"state": "Promoted"})
    with pytest.raises(RolloutError, match="it needs a new decision of the gate"):
        open_cluster(make_target(version), kube, "decision-1", counters)


@EVERY
def test_a_rollback_that_is_not_the_models_fault_starts_again_once_it_is_on_record(
    begin, kube, make_target, counters, version
):
    ended = {"state": "RolledBack", "judgement": {"cause": "server"}}
    first = begin(version)
    first.store.write("done", ended)
    second = open_cluster(make_target(version), kube, "decision-1", counters)
    assert second.store.state == ended, "another driver still has its record to write"
    second.store.recorded()
    assert open_cluster(make_target(version), kube, "decision-1", counters).store.state is None


@EVERY
def test_a_rollback_for_the_models_fault_stays_refused(begin, kube, make_target, counters, version):
    first = begin(version)
    first.store.write("done", {"state": "RolledBack", "judgement": {"cause": "model"}})
    first.store.recorded()
    with pytest.raises(RolloutError, match="it needs a new decision of the gate"):
        open_cluster(make_target(version), kube, "decision-1", counters)
