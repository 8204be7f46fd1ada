"""`holdfast rollout` on real rollouts: real Envoy, two real MLServers, real requests."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from holdfast.artifacts.documents import RolloutRecord
from holdfast.artifacts.folder import load
from holdfast.serving.rollout.conduct.journal import state_folder

PLAN = {
    "shadow_requests": 40,
    "steps": [20, 100],
    "step_requests": 60,
    "rate": 150,
    "clients": 4,
    "margin": 0.9,
    "approval": True,
}
"""Waits for an approval at the last step; the margin is wide so that few answers prove enough."""
WAIT_SECONDS = 60.0


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "holdfast", "rollout", *map(str, words)]


def holdfast(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)


def seen(out: Path) -> dict:
    done = holdfast("status", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_for(out: Path, running: subprocess.Popen, holds) -> dict:
    """What `status --json` says once `holds` of it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline and running.poll() is None:
        if (state_folder(out) / "status.json").exists():
            found = seen(out)
            if found["status"] and holds(found["status"]):
                return found
        threading.Event().wait(0.1)
    raise AssertionError(f"it never came to this: {running.communicate(timeout=5) if running.poll() else 'running'}")


@pytest.fixture
def running(tracking, tmp_path):
    """A rollout of version 2 in a process of its own, and where its record goes."""
    out = tmp_path / "rollout"
    words = ("start", "--name", "tiny", "--version", 2, "--tracking", tracking, "--config", json.dumps(PLAN))
    process = subprocess.Popen(command(*words, "--out", out), stderr=subprocess.PIPE, text=True)
    yield process, out
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_a_rollout_is_seen_approved_too_early_and_aborted(running):
    process, out = running
    watching = subprocess.Popen(
        command("watch", "--out", out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    found = wait_for(out, process, lambda status: status["weight"] > 0)
    assert found["driver"] == "runs"
    assert found["status"]["driver"]["pid"] == process.pid
    screen = holdfast("status", "--out", out).stdout
    assert "tiny version 2 against champion version 1" in screen
    assert "not given yet: holdfast rollout promote" in screen
    given = holdfast("promote", "--out", out, "--reason", "looks good")
    assert given.returncode == 0, given.stderr
    assert seen(out)["status"]["approved"] is True
    aborted = holdfast("abort", "--out", out, "--reason", "release freeze", "--json")
    assert aborted.returncode == 0, aborted.stderr
    assert process.wait(timeout=20) == 0
    record = load(out, RolloutRecord).document
    assert (record.outcome, record.reason, record.transitions[-1].weight) == ("inconclusive", "release freeze", 0)
    assert json.loads(aborted.stdout)["record"]["reason"] == "release freeze"
    told = watching.communicate(timeout=20)
    assert "outcome     inconclusive" in told[0]
    assert "rollout: Canary 20 %, weight 20 %" in told[1]
