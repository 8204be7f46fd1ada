"""Children end with their parent, however it ends."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.errors import RefusedError, RolloutError
from holdfast.serving.rollout.local.processes import children, reserved_ports, start, wait_ready

PYTHON = sys.executable
WAITS = "import signal; signal.pause()"


async def never() -> bool:
    return False


def running(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_children_are_gone_after_the_block(tmp_path):
    with children() as started:
        started.append(start("waits", [PYTHON, "-c", WAITS], tmp_path))
        assert started[0].alive
    assert not started[0].alive


def test_a_child_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("holdfast.serving.rollout.local.processes.STOP_SECONDS", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    with children() as started:
        child = start("deaf", [PYTHON, "-c", deaf], tmp_path)
        started.append(child)

        async def is_deaf() -> bool:
            return child.tail() == "deaf"

        asyncio.run(wait_ready(child, is_deaf, 20))
    assert child.process.returncode == -signal.SIGKILL


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path):
    parent = subprocess.Popen(
        [
            PYTHON,
            "-c",
            "import sys, signal; from pathlib import Path; from holdfast.serving.rollout.local.processes import start\n"
            f"child = start('waits', [sys.executable, '-c', {WAITS!r}], Path({str(tmp_path)!r}))\n"
            "print(child.process.pid, flush=True); signal.pause()",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    watched = os.pidfd_open(pid)
    assert running(pid)
    parent.kill()
    parent.wait()
    # Readable when the process has ended; init reaps it.
    import select

    assert select.select([watched], [], [], 10)[0], "the child outlived its parent"


def test_a_server_that_ends_early_is_reported_with_its_last_words(tmp_path):
    child = start("server", [PYTHON, "-c", "import sys; sys.exit('no such model')"], tmp_path)
    with pytest.raises(RolloutError, match="server: expected to start, found exit code 1: no such model"):
        asyncio.run(wait_ready(child, never, 20))


def test_exit_code_3_is_a_refusal(tmp_path):
    child = start("server", [PYTHON, "-c", "print('error: altered'); raise SystemExit(3)"], tmp_path)
    with pytest.raises(RefusedError, match="server: altered"):
        asyncio.run(wait_ready(child, never, 20))


def test_a_server_that_is_never_ready_runs_into_the_deadline(tmp_path):
    with children() as started:
        started.append(start("server", [PYTHON, "-c", WAITS], tmp_path))
        with pytest.raises(RolloutError, match=r"server: expected to be ready within 0.2 s"):
            asyncio.run(wait_ready(started[0], never, 0.2))


def test_reserved_ports_differ():
    with reserved_ports(8) as ports:
        assert len(set(ports)) == 8
