"""Whole rollouts by the controller against a real API server, with traffic that really moves through Envoy."""

import time

import pytest

from holdfast.errors import FencedError
from holdfast.serving.rollout.cluster.open import open_cluster, prepare
from holdfast.serving.rollout.cluster.table import DRIVERS
from holdfast.serving.rollout.engine.controller import Ask, Controller, OperatorRequest, Pace
from holdfast.serving.rollout.engine.machine import State
from holdfast.serving.rollout.engine.plan import plan_of
from holdfast.workload.schema import RolloutPlan

EVERY = pytest.mark.parametrize("version", list(DRIVERS))
OLD, NEW = "s3://models/sha256/" + "a" * 64, "s3://models/sha256/" + "b" * 64
PLAN = RolloutPlan(shadow_requests=50, steps=(25, 100), step_requests=150, margin=0.05, max_step_seconds=30)
"""One plan, of which every driver carries out the same."""
PACE = Pace(interval=0.1, checkpoint=0.3, pending=20, promoting=30, aftermath=0)


class KilledError(Exception):
    """Ends a controller as a SIGKILL does: nothing of it runs any more."""


class Real:
    """The clock of this machine."""

    def now(self):
        return time.monotonic()

    def sleep(self, seconds):
        time.sleep(seconds)


class Notes:
    """Remembers what a watcher is told."""

    def __init__(self):
        self.moves, self.pages = [], []

    def observed(self, rollout, seen):
        self.last = rollout

    def moved(self, before, after):
        self.moves.append(after.name)

    def paged(self, rollout, reason):
        self.pages.append(reason)


@pytest.fixture
def conduct(kube, operator, champion, make_target, counters):
    """Begins, or goes on with, the rollout of the target; returns the controller and what it told."""
    there = []

    def begin(version, *, through=None, requests=lambda: None):
        if version not in there:
            champion(version)
            there.append(version)
        cluster = open_cluster(make_target(version), through or kube, "decision-1", counters)
        prepare(cluster, 20)
        if version == "seldon-v2":
            cluster.driver.steady, cluster.driver.spread = 0.3, 0.3
        plan, notes = plan_of(without_probes(version), classes=2, attacks=None, probation=False, probed=False), Notes()
        made = Controller(plan, cluster.driver, cluster.store, Real(), notes, requests=requests, pace=PACE)
        return made, notes

    return begin


def when(state, notes, act):
    """Requests: what `act` returns, at the first look in `state`; `notes` gets the watcher once there is one."""
    done = []

    def requests():
        here = getattr(notes[0], "last", None)
        if done or here is None or here.name != state:
            return None
        done.append(state)
        return act()

    return requests


def without_probes(version):
    """The plan as far as it goes without them: where requests are not copied there is no shadow then."""
    return PLAN if DRIVERS[version].mirrors else PLAN.model_copy(update={"shadow_requests": 0})


@pytest.fixture
def serves(objects):
    """What the stable arm serves, and whether anything of a rollout is left."""
    return lambda version: (objects.uri(version), objects.left(version))


@EVERY
def test_a_good_candidate_is_promoted_and_no_client_loses_an_answer(conduct, serves, mesh, version):
    controller, notes = conduct(version)
    with mesh.clients() as bad:
        ended = controller.run()
    assert ended.state is State.PROMOTED, ended.judgement
    shadow = ["Shadow"] if DRIVERS[version].mirrors else []
    assert notes.moves == [*shadow, "Canary 25 %", "Canary 100 %", "Promoting", "Promoted"]
    assert serves(version) == (NEW, False)
    assert bad == []
    kinds = [line["kind"] for line in controller.store.history()]
    assert kinds[0] == "intent"
    assert kinds[-1] == "mirrored"


@EVERY
def test_a_candidate_that_answers_errors_only_is_rolled_back(conduct, serves, mesh, version):
    controller, _ = conduct(version)
    mesh.candidate.fail = True
    with mesh.clients() as bad:
        ended = controller.run()
    assert ended.state is State.ROLLED_BACK
    assert serves(version) == (OLD, False)
    assert bad == []
    again, _ = conduct(version)  # the same decision does not bring it back
    assert again.run().state is State.ROLLED_BACK
    assert serves(version) == (OLD, False)


@EVERY
def test_a_candidate_whose_pods_crash_is_rolled_back(conduct, serves, crash, mesh, version):
    notes = []
    controller, told = conduct(version, requests=when("Canary 25 %", notes, lambda: crash(version)))
    notes.append(told)
    with mesh.clients() as bad:
        assert controller.run().state is State.ROLLED_BACK
    assert serves(version) == (OLD, False)
    assert bad == []


@pytest.mark.parametrize(
    ("version", "state"),
    [(name, state) for name in DRIVERS for state in ("Shadow", "Canary 25 %") if DRIVERS[name].mirrors or "C" in state],
)
def test_another_replica_goes_on_where_a_killed_one_was(conduct, serves, mesh, version, state):
    def die():
        raise KilledError

    notes = []
    first, told = conduct(version, requests=when(state, notes, die))
    notes.append(told)
    with mesh.clients() as bad:
        with pytest.raises(KilledError):
            first.run()
        second, _ = conduct(version)
        assert second.run().state is State.PROMOTED
    for act in (first.driver.remove_candidate, lambda: first.store.write("checkpoint", {})):
        with pytest.raises(FencedError, match="another driver has taken over"):
            act()
    assert serves(version) == (NEW, False)
    assert bad == []


@EVERY
def test_an_abort_takes_the_candidate_out(conduct, serves, mesh, version):
    notes = []
    controller, told = conduct(
        version, requests=when("Canary 25 %", notes, lambda: OperatorRequest(Ask.ABORT, "I say so"))
    )
    notes.append(told)
    with mesh.clients():
        assert controller.run().state is State.INCONCLUSIVE
    assert serves(version) == (OLD, False)


@EVERY
@pytest.mark.parametrize("bad_candidate", [False, True])
def test_a_third_of_failing_calls_changes_no_verdict(conduct, spoiled, serves, mesh, version, bad_candidate):
    controller, _ = conduct(version, through=spoiled.kube)
    mesh.candidate.fail = bad_candidate
    spoiled.share = 0.3
    with mesh.clients() as bad:
        ended = controller.run()
    assert spoiled.count > 0
    assert bad == []
    if bad_candidate:
        assert ended.state is State.ROLLED_BACK
    assert serves(version) == ((NEW if ended.state is State.PROMOTED else OLD), False)
