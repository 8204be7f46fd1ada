"""The site as a process: one writer, a dead-man's switch, and nothing left behind. Envoy is real; the servers hold no
model (`benchmarks/faults/upstream.py`) but one time.
"""

import json
import os
import signal
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from benchmarks.faults.scene import LAST, Kind, playing
from benchmarks.faults.scene import fast as without_models

from holdfast.errors import FencedError, RolloutError
from holdfast.serving.rollout.contract.served_arm import served_arm
from holdfast.serving.rollout.local import launch
from holdfast.serving.rollout.local.driver import LocalDriver
from holdfast.workload.schema import RolloutPlan

WAIT_SECONDS = 30


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.npz"
    np.savez(path, x=np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32))
    return path


@pytest.fixture
def site(rows, tmp_path):
    """A site with traffic; whatever is left behind fails the test."""
    with playing(tmp_path / "0-site", without_models(rows, rate=200.0, clients=4, ttl=3.0, linger=15.0)) as scene:
        yield scene
    assert scene.wrong == []


def wait(ready, seconds=WAIT_SECONDS):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def test_only_the_newest_driver_is_heard(site):
    old, new = LocalDriver(site.site.socket, 1), LocalDriver(site.site.socket, 2)
    old.apply(20, shadow=False)
    new.apply(50, shadow=False)
    for act in (lambda: old.apply(20, shadow=False), old.remove_candidate, old.promote, old.observe):
        with pytest.raises(FencedError, match="driver 1 was followed by driver 2"):
            act()
    assert new.observe().weight == 50


def test_probes_reach_each_arm_and_clients_do_not_choose_one(site):
    driver = LocalDriver(site.site.socket, 1)
    wait(lambda: site.tally().probes.pairs > 20)
    headers = {"x-rollout": "candidate", "content-type": "application/json"}
    for _ in range(20):
        with urllib.request.urlopen(urllib.request.Request(site.site.url, b"{}", headers)) as response:
            assert json.load(response)["model_version"] == "1"
    assert site.tally().strays == 0
    assert driver.observe().live == 0


def test_a_weight_that_nobody_renews_is_taken_back_and_the_candidate_gets_nothing(site):
    driver = LocalDriver(site.site.socket, 1)
    driver.apply(50, shadow=False)
    wait(lambda: driver.observe().live > 20)
    began = time.monotonic()
    wait(lambda: driver.observe().weight == 0)
    assert time.monotonic() - began < site.kind.ttl + 1.5
    time.sleep(0.2)
    at_zero = driver.observe()
    time.sleep(0.5)
    later = driver.observe()
    assert later.live == at_zero.live
    assert later.routed > at_zero.routed
    assert site.tally().failed == 0


def test_a_mirror_that_nobody_renews_is_taken_back_too(site):
    driver = LocalDriver(site.site.socket, 1)
    driver.apply(0, shadow=True)
    wait(lambda: driver.observe().mirrored > 50)
    time.sleep(site.kind.ttl + 0.5)
    at_zero = driver.observe()
    time.sleep(0.5)
    # Two probes in a hundred requests go on.
    assert driver.observe().mirrored - at_zero.mirrored < 20


def test_a_promotion_needs_no_driver(site):
    driver = LocalDriver(site.site.socket, 1)
    driver.apply(100, shadow=False)
    driver.promote()
    driver.close()
    time.sleep(site.kind.ttl + 0.5)
    assert LocalDriver(site.site.socket, 1).observe().weight == 100


def test_a_candidate_that_was_taken_out_does_not_come_back(site):
    driver = LocalDriver(site.site.socket, 1)
    driver.apply(50, shadow=False)
    driver.remove_candidate()
    driver.remove_candidate()
    with pytest.raises(RolloutError, match="the candidate was removed"):
        driver.apply(50, shadow=False)
    assert driver.observe().weight == 0


def test_a_site_without_a_driver_ends_and_leaves_nothing(site):
    driver = LocalDriver(site.site.socket, 1)
    driver.apply(20, shadow=False)
    driver.close()
    site.replay.terminate()
    site.replay.wait(10)
    folder, pids = site.site.socket.parent, site.site.pids.values()
    wait(site.site.gone, site.kind.linger + 15)
    assert not folder.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("what", ["site", "envoy"])
def test_taking_out_what_nothing_leads_to_any_more_is_done(site, what):
    driver = LocalDriver(site.site.socket, 1)
    driver.apply(50, shadow=False)
    folder = site.site.socket.parent
    site.replay.terminate()
    site.replay.wait(10)
    pid = site.site.pid if what == "site" else site.site.pids["envoy"]
    os.kill(pid, signal.SIGKILL)
    wait(lambda: site.site.gone() if what == "site" else not driver.health().router)
    driver.remove_candidate()
    if what == "site":
        for file in sorted(folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        folder.rmdir()


def test_after_a_killed_driver_the_next_one_finds_the_same_servers(site):
    first = site.drive()
    site.until(site.entered("Shadow"), "the shadow", WAIT_SECONDS)
    first.kill()
    first.communicate()
    again = launch._running(site.folder, site.kind.spec)
    assert again is not None
    assert (again.pids, again.found) == (site.site.pids, True)
    second = site.drive()
    wait(lambda: any(act["fence"] == 2 for act in site.acts()))
    assert site.look().candidate_alive
    second.terminate()
    assert site.end_of(second)["state"] == "Inconclusive"


def test_a_site_with_models_is_found_again_and_ended(bundle, tmp_path):
    served = served_arm("tiny", 1, bundle).served
    plan = RolloutPlan()
    kind = Kind(served, served, bundle / "replay.npz", fast=False, config=plan)
    site = launch.attach(tmp_path, kind.spec, lambda: None)
    driver = LocalDriver(site.socket, LAST)
    try:
        found = launch.attach(tmp_path, kind.spec, lambda: None)
        assert (found.pid, found.found) == (site.pid, True)
        assert driver.health().candidate
    finally:
        launch.end(site, driver)
    assert site.gone()
    assert not site.socket.parent.exists()
