"""The local deployment as a process: one writer, a lease, and nothing left behind. Envoy is real; the servers hold no
model (`tests/faults/live/upstream.py`) but one time.
"""

import json
import os
import signal
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from holdfast.errors import FencedError, RolloutError
from holdfast.serving.rollout.contract.served_arm import served_arm
from holdfast.serving.rollout.local import launch
from holdfast.serving.rollout.local.driver import LocalDriver
from holdfast.workload.schema import RolloutPlan
from tests.faults.live.scene import LAST, Kind, playing
from tests.faults.live.scene import fast as without_models

WAIT_SECONDS = 30


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.npz"
    np.savez(path, x=np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32))
    return path


@pytest.fixture
def scene(rows, tmp_path):
    """A local deployment with traffic; what is left behind fails the test."""
    with playing(
        tmp_path / "0-deployment", without_models(rows, rate=200.0, clients=4, ttl=3.0, linger=15.0)
    ) as running:
        yield running
    assert running.wrong == []


def wait(ready, seconds=WAIT_SECONDS):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def test_only_the_newest_driver_is_heard(scene):
    old, new = LocalDriver(scene.deployment.socket, 1), LocalDriver(scene.deployment.socket, 2)
    old.apply(20, shadow=False)
    new.apply(50, shadow=False)
    for act in (lambda: old.apply(20, shadow=False), old.remove_candidate, old.promote, old.observe):
        with pytest.raises(FencedError, match="driver 1 was followed by driver 2"):
            act()
    assert new.observe().weight == 50


def test_probes_reach_each_arm_and_clients_do_not_choose_one(scene):
    driver = LocalDriver(scene.deployment.socket, 1)
    wait(lambda: scene.tally().probes.pairs > 20)
    headers = {"x-rollout": "candidate", "content-type": "application/json"}
    for _ in range(20):
        with urllib.request.urlopen(urllib.request.Request(scene.deployment.url, b"{}", headers)) as response:
            assert json.load(response)["model_version"] == "1"
    assert scene.tally().strays == 0
    assert driver.observe().live == 0


def test_a_weight_that_is_not_renewed_is_taken_back_and_the_candidate_gets_nothing(scene):
    driver = LocalDriver(scene.deployment.socket, 1)
    driver.apply(50, shadow=False)
    wait(lambda: driver.observe().live > 20)
    began = time.monotonic()
    wait(lambda: driver.observe().weight == 0)
    assert time.monotonic() - began < scene.kind.ttl + 1.5
    time.sleep(0.2)
    at_zero = driver.observe()
    time.sleep(0.5)
    later = driver.observe()
    assert later.live == at_zero.live
    assert later.routed > at_zero.routed
    assert scene.tally().failed == 0


def test_a_mirror_that_is_not_renewed_is_taken_back_too(scene):
    driver = LocalDriver(scene.deployment.socket, 1)
    driver.apply(0, shadow=True)
    wait(lambda: driver.observe().mirrored > 50)
    time.sleep(scene.kind.ttl + 0.5)
    at_zero = driver.observe()
    time.sleep(0.5)
    # Two probes in a hundred requests go on.
    assert driver.observe().mirrored - at_zero.mirrored < 20


def test_a_promotion_needs_no_driver(scene):
    driver = LocalDriver(scene.deployment.socket, 1)
    driver.apply(100, shadow=False)
    driver.promote()
    driver.close()
    time.sleep(scene.kind.ttl + 0.5)
    assert LocalDriver(scene.deployment.socket, 1).observe().weight == 100


def test_a_candidate_that_was_taken_out_does_not_come_back(scene):
    driver = LocalDriver(scene.deployment.socket, 1)
    driver.apply(50, shadow=False)
    driver.remove_candidate()
    driver.remove_candidate()
    with pytest.raises(RolloutError, match="the candidate was removed"):
        driver.apply(50, shadow=False)
    assert driver.observe().weight == 0


def test_a_deployment_without_a_driver_ends_and_leaves_nothing(scene):
    driver = LocalDriver(scene.deployment.socket, 1)
    driver.apply(20, shadow=False)
    driver.close()
    scene.replay.terminate()
    scene.replay.wait(10)
    folder, pids = scene.deployment.socket.parent, scene.deployment.pids.values()
    wait(scene.deployment.gone, scene.kind.linger + 15)
    assert not folder.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("what", ["deployment", "envoy"])
def test_taking_out_what_nothing_leads_to_any_more_is_done(scene, what):
    driver = LocalDriver(scene.deployment.socket, 1)
    driver.apply(50, shadow=False)
    folder = scene.deployment.socket.parent
    scene.replay.terminate()
    scene.replay.wait(10)
    pid = scene.deployment.pid if what == "deployment" else scene.deployment.pids["envoy"]
    os.kill(pid, signal.SIGKILL)
    wait(lambda: scene.deployment.gone() if what == "deployment" else not driver.health().router)
    driver.remove_candidate()
    if what == "deployment":
        for file in sorted(folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        folder.rmdir()


def test_after_a_killed_driver_the_next_one_finds_the_same_servers(scene):
    first = scene.drive()
    scene.until(scene.entered("Shadow"), "the shadow", WAIT_SECONDS)
    first.kill()
    first.communicate()
    again = launch._running(scene.folder, scene.kind.spec)
    assert again is not None
    assert (again.pids, again.found) == (scene.deployment.pids, True)
    second = scene.drive()
    wait(lambda: any(act["fence"] == 2 for act in scene.acts()))
    assert scene.look().candidate_alive
    second.terminate()
    assert scene.end_of(second)["state"] == "Inconclusive"


def test_a_deployment_with_models_is_found_again_and_ended(bundle, tmp_path):
    served = served_arm("tiny", 1, bundle).served
    plan = RolloutPlan()
    kind = Kind(served, served, bundle / "replay.npz", fast=False, config=plan)
    found = launch.attach(tmp_path, kind.spec, lambda: None)
    driver = LocalDriver(found.socket, LAST)
    try:
        again = launch.attach(tmp_path, kind.spec, lambda: None)
        assert (again.pid, again.found) == (found.pid, True)
        assert driver.health().candidate
    finally:
        launch.end(found, driver)
    assert found.gone()
    assert not found.socket.parent.exists()
