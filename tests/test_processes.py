"""What /proc knows of a process, children that end with their parent, groups that end, and ports that are taken."""

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

from holdfast.errors import HoldfastError, RefusedError, RolloutError, WorkloadError
from holdfast.processes import (
    children,
    reap,
    require_free,
    reserved_ports,
    runs,
    signal_group,
    start,
    started,
    wait_ready,
)

TICK = os.sysconf("SC_CLK_TCK")


def test_a_process_that_runs_started_before_now_and_after_boot():
    ticks = started(os.getpid())
    assert 0 < ticks <= time.clock_gettime(time.CLOCK_BOOTTIME) * TICK + 1  # the kernel's own clock since boot
    assert runs(os.getpid())


def test_two_processes_are_told_apart_by_when_they_started():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        time.sleep(2 / TICK)
        assert started(child.pid) > started(os.getpid())


def test_a_process_that_ended_and_was_not_waited_for_does_not_run():
    child = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and kept as a zombie
        assert (started(child.pid), runs(child.pid)) == (None, False)
    finally:
        child.wait()
    assert not runs(child.pid)


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("echo ready; exec sleep 60", -signal.SIGTERM),
        ("trap '' TERM; echo ready; while :; do sleep 0.1; done", -signal.SIGKILL),
    ],
)
def test_a_child_that_was_told_to_end_is_waited_for_and_killed_if_it_does_not(program, code):
    with subprocess.Popen(["sh", "-c", program], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        child.terminate()
        reap(child, 0.3)
        assert child.returncode == code


def test_a_group_ends_with_its_children_and_one_that_is_gone_is_no_error():
    child = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
    grandchild = int(child.stdout.readline())
    signal_group(child.pid, signal.SIGKILL)
    child.communicate(timeout=10)  # the pipe ends when both are gone
    assert not runs(grandchild)
    signal_group(child.pid, signal.SIGKILL)


@pytest.mark.parametrize(("refusal", "kind"), [((), RolloutError), ((WorkloadError,), WorkloadError)])
def test_a_port_on_which_somebody_listens_is_refused_and_a_free_one_not(refusal, kind):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(HoldfastError, match=f"127.0.0.1:{port}: expected a free port, found it taken") as caught:
            require_free(port, *refusal)
        assert type(caught.value) is kind
    require_free(port)


def test_ports_that_are_reserved_are_free_for_us_and_no_two_are_one():
    with reserved_ports(8) as ports:
        assert len(set(ports)) == 8


PYTHON = sys.executable
WAITS = "import signal; signal.pause()"


async def never() -> bool:
    return False


def test_children_are_gone_after_the_block(tmp_path):
    with children() as begun:
        begun.append(start("waits", [PYTHON, "-c", WAITS], tmp_path))
        assert begun[0].alive
    assert not begun[0].alive


def test_a_child_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("holdfast.processes.STOP_SECONDS", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    with children() as begun:
        child = start("deaf", [PYTHON, "-c", deaf], tmp_path)
        begun.append(child)

        async def is_deaf() -> bool:
            return child.tail() == "deaf"

        asyncio.run(wait_ready(child, is_deaf, 20))
    assert child.process.returncode == -signal.SIGKILL


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path):
    parent = subprocess.Popen(
        [
            PYTHON,
            "-c",
            "import sys, signal; from pathlib import Path; from holdfast.processes import start\n"
            f"child = start('waits', [sys.executable, '-c', {WAITS!r}], Path({str(tmp_path)!r}))\n"
            "print(child.process.pid, flush=True); signal.pause()",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    watched = os.pidfd_open(pid)
    assert runs(pid)
    parent.kill()
    parent.wait()
    # Readable when the process has ended; init reaps it.
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
    with children() as begun:
        begun.append(start("server", [PYTHON, "-c", WAITS], tmp_path))
        with pytest.raises(RolloutError, match=r"server: expected to be ready within 0.2 s"):
            asyncio.run(wait_ready(begun[0], never, 0.2))
