"""The watchdog: a driver that is gone leaves no traffic on its candidate."""

import time

import pytest

from holdfast.errors import FencedError, RolloutError
from holdfast.kubernetes.objects import annotations
from holdfast.serving.rollout.cluster import watchdog
from holdfast.serving.rollout.cluster.open import open_cluster, prepare
from holdfast.serving.rollout.cluster.seldon_v1 import deployments_in
from holdfast.serving.rollout.cluster.seldon_v2 import experiments_in
from holdfast.serving.rollout.cluster.store import EXPIRES
from holdfast.serving.rollout.cluster.table import DRIVERS

EVERY = pytest.mark.parametrize("version", list(DRIVERS))
SELDON = pytest.mark.parametrize("version", ["seldon-v1", "seldon-v2"])
OLD = "s3://models/sha256/" + "a" * 64
TTL, SKEW = 60, 5


@pytest.fixture
def rollout(kube, operator, champion, make_target, counters):
    def begun(version):
        champion(version)
        cluster = open_cluster(make_target(version), kube, "decision-1", counters)
        prepare(cluster, 15)
        return cluster

    return begun


def wait(mesh, weight, shadow=False):
    deadline = time.monotonic() + 5
    while mesh.route != (weight, shadow):
        assert time.monotonic() < deadline, mesh.route
        time.sleep(0.02)


@EVERY
@pytest.mark.parametrize(("weight", "shadow"), [(0, True), (25, False), (100, False)])
def test_what_nobody_renews_is_taken_back_after_its_time_and_not_before(
    rollout, kube, namespace, mesh, version, weight, shadow
):
    cluster = rollout(version)
    cluster.driver.apply(weight, shadow)
    wait(mesh, weight, shadow and cluster.driver.mirrors)
    now = time.time()
    assert watchdog.expire(kube, namespace, lambda: now + TTL + SKEW - 3) == []
    (gone,) = watchdog.expire(kube, namespace, lambda: now + TTL + SKEW + 3)
    assert gone.name == "fraud"
    wait(mesh, 0)
    assert mesh.share(20) == 0
    assert watchdog.expire(kube, namespace, lambda: now + 10 * TTL) == []
    assert cluster.store.history()[-1]["kind"] == "expired"


@EVERY
def test_a_driver_that_was_only_asleep_is_refused_when_it_wakes(
    rollout, kube, namespace, mesh, make_target, counters, version
):
    cluster = rollout(version)
    cluster.store.write("intent", {"state": "Canary"})
    cluster.driver.apply(25, False)
    watchdog.expire(kube, namespace, lambda: time.time() + TTL + SKEW + 3)
    for act in (lambda: cluster.driver.apply(25, False), cluster.driver.remove_candidate):
        with pytest.raises(FencedError):
            act()
    with pytest.raises(FencedError):
        cluster.store.write("checkpoint", {"state": "Canary"})
    wait(mesh, 0)
    again = open_cluster(make_target(version), kube, "decision-1", counters)
    assert again.store.state == {"state": "Canary"}
    again.driver.remove_candidate()


@SELDON
def test_a_promotion_that_nobody_finishes_is_taken_back_whole(
    rollout, kube, namespace, operator, objects, mesh, version
):
    driver = rollout(version).driver
    driver.apply(100, False)
    operator.unready.add("main")
    driver.settle = 0.5
    with pytest.raises(RolloutError, match="the change is not in effect"):
        driver.promote()
    operator.unready.clear()
    watchdog.expire(kube, namespace, lambda: time.time() + TTL + SKEW + 3)
    operator.look()
    wait(mesh, 0)
    assert objects.uri(version) == OLD


def test_an_expiry_without_meaning_counts_as_passed(rollout, kube, namespace, mesh):
    rollout("seldon-v1").driver.apply(25, False)
    broken = {"metadata": {"annotations": {EXPIRES: "soon"}}}
    kube.merge(deployments_in(namespace), "fraud", broken)
    assert len(watchdog.expire(kube, namespace)) == 1
    wait(mesh, 0)


def test_objects_that_no_rollout_moves_are_left_alone(kube, namespace, champion):
    champion("seldon-v1")
    spec = {"default": "a", "candidates": [{"name": "a", "weight": 50}, {"name": "b", "weight": 50}]}
    body = {"apiVersion": "mlops.seldon.io/v1alpha1", "kind": "Experiment", "metadata": {"name": "theirs"}}
    kube.create(experiments_in(namespace), {**body, "spec": spec})
    assert watchdog.expire(kube, namespace, lambda: time.time() + 10**6) == []
    assert kube.get(experiments_in(namespace), "theirs")["spec"] == spec


def test_one_object_that_cannot_be_taken_back_does_not_stop_the_others(rollout, kube, namespace, mesh):
    rollout("seldon-v1").driver.apply(25, False)
    graph = {"name": "m", "modelUri": OLD}
    body = {"apiVersion": "machinelearning.seldon.io/v1", "kind": "SeldonDeployment"}
    notes = {EXPIRES: "2020-01-01T00:00:00Z"}
    spec = {"predictors": [{"name": "other", "traffic": 100, "graph": graph}]}
    kube.create(deployments_in(namespace), {**body, "metadata": {"name": "a", "annotations": notes}, "spec": spec})
    with pytest.raises(RolloutError, match="a: expected a predictor"):
        watchdog.expire(kube, namespace, lambda: time.time() + TTL + SKEW + 3)
    assert EXPIRES not in annotations(kube.get(deployments_in(namespace), "fraud"))


def test_a_watch_looks_again_and_again_and_tells_what_it_did(rollout, kube, namespace, mesh):
    cluster = rollout("seldon-v1")
    cluster.driver.wall = lambda: time.time() - TTL - SKEW + 1
    cluster.driver.apply(25, False)
    told = []
    assert watchdog.watch(kube, namespace, 3, told.append, every=0.2) == 1
    assert "SeldonDeployment fraud: its driver is gone since" in told[0]
