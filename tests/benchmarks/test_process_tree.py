"""What a command cost is the sum over everything that came of it, whoever was waited for by whom."""

import sys
from pathlib import Path

from benchmarks.process_tree import spent

BURNS = "import time\nwhile time.process_time() < {seconds}: pass\n"
DETACHES = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-c", {program!r}])
    os._exit(0)
os.wait()
"""
"""Starts a program as daemons are started: forked twice, in a session of its own, not waited for by the program."""


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def detached(program: str) -> list[str]:
    return python(DETACHES.format(program=program))


def test_the_commands_own_time_and_exit_code_are_measured(tmp_path):
    found = spent(python(BURNS.format(seconds=0.6) + "raise SystemExit(3)"), cwd=tmp_path, log=tmp_path / "log")
    assert found.code == 3
    assert 0.6 <= found.cpu < 1.6
    assert found.wall >= 0.6


def test_a_process_that_forked_twice_and_outlives_the_command_is_counted(tmp_path):
    # Oracle: the detached process burns until its own clock has 1.2 s; the command itself needs next to nothing.
    found = spent(detached(BURNS.format(seconds=1.2)), cwd=tmp_path, log=tmp_path / "log")
    assert (found.code, found.left) == (0, ())
    assert 1.2 <= found.cpu < 2.4
    assert found.wall < 1.2


def test_what_is_left_running_is_named_and_killed(tmp_path):
    waits = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    found = spent(detached(waits), cwd=tmp_path, log=tmp_path / "log", left=1.0)
    assert len(found.left) == 1
    assert "time.sleep(600)" in found.left[0]
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_the_output_goes_to_the_log(tmp_path):
    spent(python("print('said')"), cwd=tmp_path, log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "said\n"
