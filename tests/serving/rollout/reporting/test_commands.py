"""`holdfast rollout` on real rollouts: real Envoy, two real MLServers, real requests."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from holdfast import registry
from holdfast.artifacts.documents import RolloutRecord
from holdfast.artifacts.folder import load, save
from holdfast.registry.notes import parse
from holdfast.serving.rollout.engine.journal import read_journal, state_folder
from holdfast.serving.rollout.local import launch
from holdfast.serving.rollout.local.supersede import supersede
from holdfast.serving.rollout.reporting import status as told

LAST = {"weight": 100, "requests": 100_000, "max_seconds": 900}
"""Is still at it when the test has seen enough."""
PLAN = {"shadow_requests": 40, "steps": [20, LAST], "step_requests": 60, "rate": 150, "clients": 4, "approval": True}
WAIT_SECONDS = 150.0
"""For one state; a quiet machine needs a tenth of it."""


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "holdfast", "rollout", *map(str, words)]


def holdfast(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)


def seen(out: Path) -> dict:
    done = holdfast("status", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_for_canary(out: Path, running: subprocess.Popen) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline and running.poll() is None:
        found = told.read(state_folder(out) / told.FILE)
        if found is not None and found.driver.pid == running.pid and found.weight > 0:
            return
        threading.Event().wait(0.1)
    raise AssertionError(f"it never came to a canary step; exit code {running.poll()}")


@pytest.fixture
def start(tracking, tmp_path):
    """Starts rollouts in processes of their own; those that still run are told to stop at the end."""
    begun: list[subprocess.Popen] = []

    def begin(version: int, out: Path, *more: object) -> subprocess.Popen:
        words = ("start", "--name", "tiny", "--version", version, "--tracking", tracking, "--config", json.dumps(PLAN))
        process = subprocess.Popen(command(*words, "--out", out, *more), stderr=subprocess.PIPE, text=True)
        begun.append(process)
        wait_for_canary(out, process)
        return process

    yield begin
    for process in begun:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_rollout_is_seen_approved_too_early_and_aborted(start, tracking, tmp_path):
    out = tmp_path / "rollout"
    process = start(2, out)
    watching = subprocess.Popen(
        command("watch", "--out", out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    found = seen(out)
    assert (found["driver"], found["status"]["driver"]["pid"]) == ("runs", process.pid)
    assert peak_rss_mib(process.pid) <= 60
    screen = holdfast("status", "--out", out).stdout
    assert "tiny version 2 against champion version 1" in screen
    assert "not given yet: holdfast rollout promote" in screen
    given = holdfast("promote", "--out", out, "--reason", "looks good", "--json")
    assert given.returncode == 0, given.stderr
    assert json.loads(given.stdout)["status"]["approved"] is True
    aborted = holdfast("abort", "--out", out, "--reason", "release freeze", "--json")
    assert aborted.returncode == 0, aborted.stderr
    assert json.loads(aborted.stdout)["record"]["reason"] == "release freeze"
    last = process.communicate(timeout=60)[1].splitlines()[-1]
    assert process.returncode == 0
    assert last.startswith("rollout: tiny version 2: inconclusive: release freeze (cause: ended by a person")
    assert f"The command: holdfast rollout start --name tiny --version 2 --tracking {tracking}" in last
    record = load(out, RolloutRecord).document
    assert (record.outcome, record.transitions[-1].weight, record.requests_failed) == ("inconclusive", 0, 0)
    assert record.cause == "operator"
    assert "approved" in {json.loads(line)["event"] for line in (out / "log.jsonl").read_text().splitlines()}
    screen, lines = watching.communicate(timeout=30)
    assert "outcome     inconclusive" in screen
    assert "rollout: Canary 20 %, weight 20 %" in lines
    found = json.loads(holdfast("history", "--name", "tiny", "--tracking", tracking, "--json").stdout)
    (noted,) = [one for one in found["rollouts"] if one["reason"] == "release freeze"]
    assert (noted["version"], noted["outcome"], noted["champion_after"]) == (2, "inconclusive", 1)
    assert noted["model"] == record.inputs["candidate"]


def test_a_rollout_that_has_passed_waits_for_its_approval_and_is_promoted(start, own_tracking, tmp_path):
    out, last = tmp_path / "rollout", {"weight": 100, "requests": 60, "max_seconds": 60}
    plan = {**PLAN, "steps": [20, last], "margin": 0.05}
    process = start(2, out, "--config", json.dumps(plan), "--tracking", own_tracking)
    deadline = time.monotonic() + WAIT_SECONDS
    while "waiting for an approval" not in (status := seen(out)["status"])["reason"]:
        assert time.monotonic() < deadline, status
        assert process.poll() is None
        threading.Event().wait(0.2)
    assert registry.aliases(own_tracking, "tiny")["champion"] == 1
    given = holdfast("promote", "--out", out, "--reason", "looks good")
    assert given.returncode == 0, given.stderr
    assert process.wait(timeout=60) == 0
    record = load(out, RolloutRecord).document
    assert (record.outcome, record.requests_failed) == ("promoted", 0)
    assert registry.aliases(own_tracking, "tiny")["champion"] == 2
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    (approved,) = [line for line in lines if line["event"] == "approved"]
    assert approved["reason"] == "looks good"


def test_a_dead_driver_is_seen_and_superseded(start, tmp_path):
    out = tmp_path / "rollout"
    killed = start(3, out)
    site = launch.find(state_folder(out))
    killed.kill()
    killed.wait()
    assert seen(out)["driver"] == "gone"
    refused = holdfast("abort", "--out", out, "--reason", "release freeze")
    assert refused.returncode == 1
    assert "its driver is dead" in refused.stderr
    kept = supersede(out, "superseded by version 4")
    assert read_journal(kept / "journal.jsonl")[-1]["reason"] == "superseded by version 4"
    assert not state_folder(out).exists()
    assert [told.started(pid) for pid in (site.pid, *site.pids.values())] == [None] * 4
    (left,) = tmp_path.glob(".rollout.rollout-note-*.json")
    assert parse(json.loads(left.read_text())["note"]).version == 3


PLAYED = """
import shutil, sys, time
from dataclasses import replace
from pathlib import Path
from holdfast.serving.rollout.reporting import status
out, record, state = map(Path, sys.argv[1:])
status.write(state / status.FILE, replace(status.read(state / status.FILE), driver=status.DriverProcess.here()))
while not list(state.glob("requests/*.json")):
    time.sleep(0.02)
print(next(state.glob("requests/*.json")).read_text())
record.rename(out)
shutil.rmtree(state)
"""
"""Does what a driver does that is told to abort, as far as the folder shows it."""


def test_a_driver_that_runs_is_superseded_and_its_record_kept(in_canary, out, record, tmp_path):
    save(tmp_path / "record", record)
    arguments = [sys.executable, "-c", PLAYED, out, tmp_path / "record", in_canary.state]
    driver = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    while told.read(in_canary.state / told.FILE).driver.pid != driver.pid:
        threading.Event().wait(0.05)
    kept = supersede(out, "superseded by version 3")
    said = driver.communicate(timeout=10)[0]
    assert json.loads(said) == {"ask": "ABORT", "reason": "superseded by version 3"}
    assert load(kept, RolloutRecord).document.reason == "too slow"
    assert not out.exists()


def test_where_nothing_runs_nothing_is_superseded(out):
    assert supersede(out, "superseded by version 3") is None


def test_nobody_can_ask_a_rollout_that_is_not_there(tmp_path):
    for words in (("status",), ("watch",), ("abort", "--reason", "x"), ("promote", "--reason", "x")):
        done = holdfast(*words, "--out", tmp_path / "rollout")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "expected a rollout that runs, or its record, found neither" in done.stderr


def test_an_approval_that_nothing_waits_for_is_said_to_be_so(in_canary, out):
    done = holdfast("promote", "--out", out, "--reason", "looks good")
    assert done.returncode == 1
    assert "nothing waits for an approval" in done.stderr
    assert not (in_canary.state / "requests").exists()


def peak_rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) / 1024
