"""Whoever is on call: sees a rollout on a cluster, and ends it, without the folder or the pod that drives it."""

import json
import threading
import time

import pytest
import yaml
from typer.testing import CliRunner

from holdfast.cli import app
from holdfast.cli.rollout.remote import text
from holdfast.errors import FencedError, RolloutError
from holdfast.kubernetes.objects import rfc3339
from holdfast.serving.rollout.cluster import remote
from holdfast.serving.rollout.cluster.open import open_cluster, prepare
from holdfast.serving.rollout.cluster.seldon_v1 import deployments_in, predictors
from holdfast.serving.rollout.cluster.store import STATE
from holdfast.serving.rollout.cluster.table import DRIVERS
from holdfast.serving.rollout.engine.controller import Controller, Pace
from holdfast.serving.rollout.engine.plan import plan_of
from holdfast.serving.rollout.engine.requests import Stop
from holdfast.workload.schema import RolloutPlan

EVERY = pytest.mark.parametrize("version", list(DRIVERS))
PLAN = RolloutPlan(shadow_requests=30, steps=(25, 100), step_requests=100_000, max_step_seconds=600)
"""Stays in its first canary step."""
NEW = "s3://models/sha256/" + "b" * 64
PACE = Pace(interval=0.1, checkpoint=0.2, pending=20, promoting=30, aftermath=0)


class Watching:
    """Sets an event when the rollout has come to a state."""

    def __init__(self, state):
        self.state, self.there = state, threading.Event()

    def observed(self, rollout, seen):
        if rollout.name == self.state and rollout.total.live > 10:
            self.there.set()

    def moved(self, before, after):
        """Nothing."""

    def paged(self, rollout, reason):
        """Nothing."""


@pytest.fixture
def controller(kube, operator, champion, make_target, counters):
    """A controller for the target; the second one of a test goes on from what the first one left."""
    there = []

    def make(version, watcher):
        if version not in there:
            champion(version)
            there.append(version)
        cluster = open_cluster(make_target(version), kube, "decision-1", counters)
        prepare(cluster, 20)
        shadow = PLAN.shadow_requests if cluster.driver.mirrors else 0
        asked = PLAN.model_copy(update={"shadow_requests": shadow})
        plan = plan_of(asked, classes=2, attacks=None, probation=False, probed=False)
        return Controller(plan, cluster.driver, cluster.store, Stop(), watcher, requests=lambda: None, pace=PACE)

    return make


@pytest.fixture
def canary(controller, mesh):
    """A rollout in its canary step, driven by a thread; yields what its driver ended with."""
    ended = []

    def begin(version):
        watching = Watching("Canary 25 %")
        made = controller(version, watching)

        def drive():
            try:
                ended.append(made.run())
            except (RolloutError, FencedError) as error:
                ended.append(error)

        thread = threading.Thread(target=drive)
        with mesh.clients() as bad:
            thread.start()
            assert watching.there.wait(60), mesh.route
            yield bad
            thread.join(30)
        assert not thread.is_alive()
        yield ended

    return begin


def counted(see):
    """What is seen once the object has counts of the candidate: without a shadow they come with the next checkpoint."""
    deadline = time.monotonic() + 5
    while (seen := see()).candidate[1] <= 10 and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen


@EVERY
def test_a_rollout_is_seen_and_ended_without_its_folder(
    version, canary, controller, kube, namespace, mesh, make_target, api
):
    target, steps = make_target(version), canary(version)
    bad = next(steps)
    seen = counted(lambda: remote.see(target, kube))
    assert (seen.state, seen.step, seen.ended) == ("Canary", 0, False)
    assert {share for _, share in seen.weights} == {"75 %", "25 %"}
    assert seen.candidate[1] > 10
    assert "renews" in text(seen)
    assert "-> Canary 25 %" in text(seen)

    told = []
    after = remote.abort(target, kube, "clients complain", 30, told.append)
    assert (after.state, after.reason, after.ended) == ("Inconclusive", "clients complain", True)
    assert mesh.route == (0, False)
    assert after.history[-1]["kind"] == "aborted"
    assert "clients complain" in text(after)
    (error,) = next(steps)
    assert isinstance(error, FencedError), "the driver that ran is refused from then on"
    assert bad == []
    assert mesh.route == (0, False)

    again = controller(version, Watching("")).run()
    assert (again.state, again.judgement.reason) == ("Inconclusive", "clients complain")
    with pytest.raises(RolloutError, match="cannot abort: the rollout has ended already: Inconclusive"):
        remote.abort(target, kube, "again", 5, told.append)


def test_another_candidate_than_the_one_under_way_is_left_alone(canary, kube, namespace, mesh, make_target):
    steps = canary("seldon-v1")
    next(steps)
    target = make_target("seldon-v1")
    candidate = target.seldon_v1.candidate.model_copy(update={"name": "other"})
    other = target.model_copy(update={"seldon_v1": target.seldon_v1.model_copy(update={"candidate": candidate})})
    with pytest.raises(RolloutError, match="cannot abort: the rollout under way is of another candidate"):
        remote.abort(other, kube, "wrong file", 5, print)
    assert mesh.route == (25, False)
    assert len(predictors(kube.get(deployments_in(namespace), "fraud"))) == 2
    remote.abort(target, kube, "right file", 30, print)
    next(steps)


@EVERY
def test_an_abort_takes_no_verdict_back(version, kube, operator, champion, counters, mesh, make_target):
    champion(version)
    cluster = open_cluster(make_target(version), kube, "decision-1", counters)
    prepare(cluster, 20)
    cluster.driver.apply(25, False)
    verdict = {"outcome": 3, "reason": "it fails more often", "evidence": {}}
    cluster.store.write("intent", {"state": "RollingBack", "ending": "RolledBack", "judgement": verdict})
    after = remote.abort(make_target(version), kube, "quicker, please", 30, print)
    assert (after.state, after.reason) == ("RolledBack", "it fails more often")
    assert mesh.route == (0, False)
    with pytest.raises(RolloutError, match="cannot abort: the rollout has ended already: RolledBack"):
        remote.abort(make_target(version), kube, "again", 5, print)


@EVERY
def test_an_abort_that_comes_too_late_takes_no_promotion_back(
    version, kube, operator, champion, counters, mesh, make_target, monkeypatch
):
    champion(version)
    target = make_target(version)
    cluster = open_cluster(target, kube, "decision-1", counters)
    prepare(cluster, 20)
    if version == "seldon-v2":
        cluster.driver.steady, cluster.driver.spread = 0.3, 0.3
    cluster.store.write("checkpoint", {"state": "Canary"})
    cluster.driver.apply(100, False)
    before = remote.see(target, kube)
    cluster.driver.promote()
    cluster.store.write("done", {"state": "Promoted"})
    monkeypatch.setattr(remote, "see", lambda target, kube: before)  # it was promoted right after the look
    with pytest.raises(RolloutError, match="cannot abort: the rollout has ended already: Promoted"):
        remote.abort(target, kube, "why", 5, print)
    assert operator.loaded["main"] == NEW


def test_an_object_without_a_rollout_says_so(kube, operator, champion, make_target):
    champion("seldon-v1")
    seen = remote.see(make_target("seldon-v1"), kube)
    assert (seen.state, seen.ended, seen.weights) == ("none", True, (("  main", "100 %"),))
    with pytest.raises(RolloutError, match="cannot abort: no rollout is under way"):
        remote.abort(make_target("seldon-v1"), kube, "why", 5, print)


def test_a_state_without_meaning_is_an_error(kube, operator, champion, namespace, make_target):
    champion("seldon-v1")
    for state, found in (("[]", "expected JSON in"), ('{"step": "one"}', "expected a count as step")):
        kube.merge(deployments_in(namespace), "fraud", {"metadata": {"annotations": {STATE: state}}})
        with pytest.raises(RolloutError, match=found):
            remote.see(make_target("seldon-v1"), kube)


def test_a_driver_that_is_gone_is_told_from_one_that_renews():
    base = {"name": "n", "state": "Canary", "step": 1, "reason": "r", "subject": "", "weights": (), "fence": 3}
    counts = {"candidate": (0, 0), "champion": (0, 0), "history": ()}
    seen = remote.Remote(**base, **counts, expires_at=rfc3339(1000))
    assert "renews, 40 s before the watchdog would act" in text(seen, lambda: 960)
    assert "GONE (fence 3): should have renewed 20 s ago" in text(seen, lambda: 1020)
    assert "state             Canary, step 2" in text(seen, lambda: 960)


def test_the_commands_take_a_target_instead_of_a_folder(
    api, kube, operator, champion, namespace, make_target, tmp_path
):
    champion("seldon-v1")
    config = tmp_path / "kubeconfig"
    config.write_text(yaml.safe_dump(kubeconfig(api)))
    document = make_target("seldon-v1", kubeconfig=str(config)).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    (tmp_path / "target.yaml").write_text(yaml.safe_dump(document))
    at = ["--target", str(tmp_path / "target.yaml")]
    found = CliRunner().invoke(app, ["rollout", "status", *at, "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["state"] == "none"
    both = CliRunner().invoke(app, ["rollout", "status", *at, "--out", "x"])
    neither = CliRunner().invoke(app, ["rollout", "abort", "--reason", "why"])
    assert (both.exit_code, neither.exit_code) == (2, 2)


def kubeconfig(api):
    user = {"name": "admin", "user": {"token": "admin-of-the-test"}}
    cluster = {"name": "c", "cluster": {"server": api.url, "certificate-authority": str(api.ca_file)}}
    context = {"name": "x", "context": {"cluster": "c", "user": "admin"}}
    return {"clusters": [cluster], "users": [user], "contexts": [context], "current-context": "x"}
