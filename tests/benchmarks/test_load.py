"""A load is the one that was asked for, for as long as it is asked for; then it is gone, however that comes about."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.load import Kind, loaded
from holdfast.errors import RolloutError

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "benchmarks.load"]


def running(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(ready, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_eight_busy_loops_all_get_to_work_and_are_gone_after_the_block():
    with loaded(Kind.A) as load:
        pids = load.pids
        until(lambda: all(cpu_seconds(pid) > 0.1 for pid in pids))
        assert len(pids) == 8
    assert not any(running(pid) for pid in pids)


def test_bursts_sync_blocks_and_import_torch_meanwhile():
    with loaded(Kind.B, seed=3) as load:
        loops, writer, importer = load.pids
        # /proc/PID/io counts what was really sent to the disk; a write that was not synced is not among it.
        written = Path(f"/proc/{writer}/io")
        until(lambda: int(written.read_text().split("write_bytes: ")[1].split()[0]) >= 2**26)
        until(lambda: children(importer) and len(children(loops)) == 8)
        pids = [*load.pids, *children(loops), *children(importer)]
    until(lambda: not any(running(pid) for pid in pids), 5.0)


def test_the_processes_that_want_a_core_are_counted():
    with loaded(Kind.A) as load:
        time.sleep(1.6)
    assert load.seen >= 7, "eight loops want one all the time; the sampler's own reading is not counted"


def test_a_worker_that_ended_is_not_passed_over():
    with ExitStack() as stack:
        worker = stack.enter_context(loaded(Kind.A)).workers[0]
        worker.kill()
        worker.wait()
        with pytest.raises(RolloutError, match="expected 8 processes at work, found 1 ended"):
            stack.close()


def test_a_command_runs_under_the_load_and_gives_its_exit_code():
    program = (
        "import os; print(len(open(f'/proc/{os.getppid()}/task/{os.getppid()}/children').read().split())); exit(7)"
    )
    done = subprocess.run(
        [*CLI, "--kind=a", "--", sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 7
    assert done.stdout.strip() == "9", "eight loops and the command"


def test_a_command_that_takes_too_long_is_ended():
    done = subprocess.run(
        [*CLI, "--kind=a", "--seconds=1", "--", "sleep", "600"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 124
    assert "sleep ran for more than 1 s" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_load_and_the_command_are_gone_with_whoever_started_them(number):
    process = subprocess.Popen([*CLI, "--kind=a", "--", "sleep", "600"], cwd=ROOT)
    until(lambda: len(children(process.pid)) == 9)
    started = children(process.pid)
    process.send_signal(number)
    process.wait(30)
    until(lambda: not any(running(pid) for pid in started), 5.0)


def test_neither_a_command_nor_a_time_is_an_error():
    done = subprocess.run([*CLI, "--kind=a"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "expected --seconds or a command" in done.stderr
