"""Steps as forks of a warm process: to the runner, and to the step, the same as a process of its own."""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.steps import STEPS, find
from holdfast_pipelines import process, warm
from holdfast_pipelines.local import _environment, pythons
from holdfast_pipelines.process import fresh, run_child
from holdfast_pipelines.warm import servers

# A stand-in for the command line: `python -m holdfast CODE` runs CODE, from a folder of its own.
COMMAND = "import sys\nexec(compile(sys.argv[1], 'step', 'exec'))\n"


@pytest.fixture
def forks():
    """Warm processes of this interpreter."""
    with servers() as found:
        yield found


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder whose module `step` runs the code that it is given."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "step.py").write_text(COMMAND)
    return folder


def environment(**more):
    return _environment(Path(sys.executable), None) | more


@pytest.fixture
def running(forks, package, tmp_path):
    """Runs CODE in a fork, or in a process of its own with `start=fresh`."""

    def run(code, start=None, name="a", **more):
        env = environment(PYTHONPATH=str(package), **more)
        return run_child(
            [sys.executable, "-m", "step", code], env=env, log=tmp_path / f"{name}.log", start=start or forks.start
        )

    return run


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("raise SystemExit(7)", 7),
        ("raise SystemExit('in words')", 1),
        ("1 / 0", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
        ("import os; os._exit(9)", 9),
        ("import atexit, os; atexit.register(os._exit, 5)", 5),
    ],
)
def test_a_fork_ends_with_the_code_of_a_process_of_its_own(running, code, expected):
    assert (running(code).code, running(code, start=fresh).code) == (expected, expected)


LAST_ACTS = """
import atexit, sys, threading, time
class Module:
    def __del__(self):
        print("taken apart")
sys.modules["made"] = Module()
atexit.register(print, "at exit")
threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
sys.stderr.write("held back")
print("end")
"""


def test_a_fork_does_its_last_acts_but_does_not_take_its_modules_apart(running):
    fork, own = (running(LAST_ACTS, start=start, name=name).tail for start, name in ((None, "a"), (fresh, "b")))
    assert (fork, own) == (("held backend", "thread", "at exit"), (*fork, "taken apart"))


def test_output_that_cannot_be_written_is_an_error_in_a_fork_as_in_every_process(running):
    code = "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    code += "; sys.stdout.reconfigure(line_buffering=False, write_through=False); print('lost')"
    assert {running(code, start=start).code for start in (None, fresh)} == {120}


# What a step can see of its process that is not a number of its own.
SEEN = """
import gc, json, os, random, resource, signal, sys, threading
seen = {
    "argv": sys.argv[:1] + sys.argv[2:], "folder": os.getcwd(), "path": sys.path,
    "environment": dict(sorted(os.environ.items())),
    "name": __name__,
    "leads": [os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid()],
    "descriptors": sorted(os.listdir("/proc/self/fd")), "threads": len(os.listdir("/proc/self/task")),
    "limits": [resource.getrlimit(number) for number in range(16)],
    "signals": [str(signal.getsignal(number)) for number in range(1, 32)],
    "mask": [str(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "stdin": sys.stdin.read(), "flags": str(sys.flags), "gc": gc.isenabled(),
    "executable": sys.executable, "same": os.path.samestat(os.fstat(1), os.fstat(2)),
    "nice": os.nice(0), "unbuffered": sys.stdout.write_through,
}
print(json.dumps(seen))
"""


def test_a_fork_sees_what_a_process_of_its_own_sees(running, monkeypatch, tmp_path):
    running("pass")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("SAID_TO_THE_STEP", "x")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        one, other = (json.loads(running(SEEN, start=start).tail[-1]) for start in (None, fresh))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert one == other
    assert (one["leads"], one["threads"], one["limits"][resource.RLIMIT_NOFILE][0]) == ([True, True], 1, soft - 1)


def test_global_generators_begin_with_entropy_of_their_own_as_in_every_process(running, forks):
    forks.prepare(Path(sys.executable), environment(), [find("train")])
    code = "import random, numpy, torch; print(random.random(), numpy.random.random(), torch.rand(1).item())"
    drawn = [running(code).tail[0].split() for _ in range(2)] + [running(code, start=fresh).tail[0].split()]
    assert [len(set(of_one_generator)) for of_one_generator in zip(*drawn, strict=True)] == [3, 3, 3]


def test_output_and_errors_go_to_the_log_in_order(running):
    ended = running("import sys; print('one'); print('two', file=sys.stderr); print('three')")
    assert ended.tail == ("one", "two", "three")


def test_steps_run_beside_each_other_each_with_its_own_log(running):
    began = time.monotonic()
    ended = {}
    code = "import os, time; time.sleep(1); print(os.getpid())"
    running("pass")

    def one(name):
        ended[name] = running(code, name=name)

    threads = [threading.Thread(target=one, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({found.tail for found in ended.values()}) == 4
    assert {found.code for found in ended.values()} == {0}
    assert time.monotonic() - began < 3.9  # one after the other they would take four


def test_what_a_step_leaves_running_ends_with_it(running, tmp_path):
    ended = running("import subprocess; print(subprocess.Popen(['sleep', '600']).pid)")
    assert gone(int(ended.tail[-1]), 5)


# --- libraries and threads ------------------------------------------------------------------------------------------


def test_every_library_of_every_step_leaves_one_thread():
    # Each environment's own interpreter; what a step imports is there, and no import has started a thread.
    program = (
        "import sys; from holdfast.steps import STEPS; from holdfast.warm.libraries import load, threads\n"
        "for step in STEPS:\n"
        "    if step.environment in sys.argv[1:]: load(step.libraries + step.libraries_if_changed)\n"
        "print(*threads(), '|', *(name for name in ('tensorflow', 'evidently', 'torch', 'mlflow', 'sklearn') "
        "if name in sys.modules))"
    )
    found = {}
    for environment_name, environments in {"data": ["data"], "model": ["model", "serving"]}.items():
        python = next(python for image, python in pythons().items() if f"/{environment_name}:" in image)
        done = subprocess.run(
            [str(python), "-W", "ignore", "-c", program, *environments],
            env=_environment(python, None),
            capture_output=True,
            text=True,
            check=True,
        )
        found[environment_name] = done.stdout.strip()
    assert found == {"data": "python | tensorflow evidently sklearn", "model": "python | torch mlflow sklearn"}


def test_what_only_something_new_needs_is_imported_where_it_was_prepared_and_not_otherwise(running, forks, monkeypatch):
    code = "import sys; print('colorsys' in sys.modules)"
    step = replace(STEPS[0], name=code, libraries=(), libraries_if_changed=("colorsys",))
    monkeypatch.setattr(warm, "find", {code: step}.get)
    assert running(code).tail == ("False",)
    forks.prepare(Path(sys.executable), environment(), [step])
    assert running(code).tail == ("True",)


def test_with_a_thread_beside_it_nothing_is_forked_and_the_runner_says_why(running, monkeypatch, capsys):
    # Left to itself, numpy's OpenBLAS starts a thread per core when it is imported.
    step = replace(STEPS[0], name="print(1)", libraries=("numpy",))
    monkeypatch.setattr(warm, "find", {"print(1)": step}.get)
    assert running("print(1)", OPENBLAS_NUM_THREADS="2").tail == ("1",)
    assert "runs as a fresh process: expected one thread before a fork, found 2: " in capsys.readouterr().err


def test_a_module_of_the_users_own_is_not_hidden_by_a_library_that_is_imported_already(running, package, capsys):
    (package / "colorsys.py").write_text("mine = True\n")
    assert running("import colorsys; print(colorsys.mine)").tail == ("True",)
    assert "fresh" not in capsys.readouterr().err
    (package / "dataclasses.py").write_text("from colorsys import mine\n")
    try:
        assert running("import dataclasses; print(dataclasses.mine)").tail[-1] == "True"
    finally:
        (package / "dataclasses.py").unlink()
        (package / "colorsys.py").unlink()
    assert "expected no module of your own in place of a library" in capsys.readouterr().err


def test_another_setting_of_a_library_is_not_ignored(running, capsys):
    running("pass")
    ended = running("import os; print(os.environ['OMP_NUM_THREADS'])", OMP_NUM_THREADS="3")
    assert ended.tail == ("3",)
    assert "found another OMP_NUM_THREADS" in capsys.readouterr().err


def test_a_warm_process_that_cannot_start_is_replaced_by_fresh_ones(tmp_path, capsys):
    (tmp_path / "python").write_text(
        f'#!/bin/sh\ncase "$*" in *warm*) echo no luck >&2; exit 1;; esac\nexec {sys.executable} "$@"\n'
    )
    (tmp_path / "python").chmod(0o755)
    with servers() as forks:
        command = [str(tmp_path / "python"), "-m", "holdfast", "--version"]
        ended = run_child(command, env=environment(), log=tmp_path / "a.log", start=forks.start)
    assert (ended.code, ended.tail) == (0, ("0.1.0",))
    assert "its warm process died: no luck" in capsys.readouterr().err


# --- ending ---------------------------------------------------------------------------------------------------------

RUNNER = """
import sys
from pathlib import Path
from holdfast_pipelines import warm
from holdfast_pipelines.local import _environment
from holdfast_pipelines.process import ends_on_sigterm, run_child
env = _environment(Path(sys.executable), Path(sys.argv[1]))
with ends_on_sigterm(), warm.servers() as forks:
    run_child([sys.executable, "-m", "step", sys.argv[3]], env=env, log=Path(sys.argv[2]), start=forks.start)
"""


@pytest.fixture
def runner(tmp_path, package):
    """Starts a runner whose step does `code`; gives the runner and a stream that ends when that step is gone."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    started = []

    def start(code):
        code = f"import os, signal, subprocess; pipe = open({str(pipe)!r}, 'w', buffering=1); {code}"
        words = [sys.executable, "-c", RUNNER, str(package), str(tmp_path / "a.log"), code]
        started.append(subprocess.Popen(words))
        return started[-1], pipe.open()

    yield start
    for found in started:
        found.kill()
        found.wait()


def test_killing_the_runner_outright_leaves_neither_its_step_nor_its_warm_process(runner):
    killed, stream = runner("print(os.getpid(), os.getppid(), file=pipe); signal.pause()")
    step, server = map(int, stream.readline().split())
    assert parent_of(server) == killed.pid
    killed.kill()
    killed.wait()
    assert stream.read() == ""
    assert gone(step, 5)
    assert gone(server, 5)


def test_killing_the_warm_process_ends_its_step_and_the_next_one_is_fresh(running, capsys):
    code = (
        f"import os, signal; assert os.getppid() != {os.getpid()};os.kill(os.getppid(), signal.SIGKILL); signal.pause()"
    )
    assert running(code).code == -signal.SIGTERM
    assert running("print(1)").tail == ("1",)
    assert "its warm process died" in capsys.readouterr().err


def test_a_runner_told_to_stop_tells_its_step_and_waits_for_its_last_act(runner):
    told, stream = runner(
        "signal.signal(signal.SIGTERM, lambda *_: (os.write(pipe.fileno(), b'saved\\n'), os._exit(0)));"
        "print('started', file=pipe); signal.pause()"
    )
    assert stream.readline() == "started\n"
    told.terminate()
    assert stream.read() == "saved\n"
    assert told.wait() == 128 + signal.SIGTERM


def test_a_step_that_does_not_stop_is_killed_after_its_grace(running, monkeypatch, package, tmp_path):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(600)"
    with servers() as forks:
        env = environment(PYTHONPATH=str(package))
        with (tmp_path / "b.log").open("wb") as log:
            child = forks.start([sys.executable, "-m", "step", deaf], env, log.fileno())
            wait_for_text(tmp_path / "b.log", "deaf")
            with pytest.raises(KeyboardInterrupt), process._ending(child):
                raise KeyboardInterrupt
    assert gone(child.pid, 1)


def test_a_runner_that_is_gone_while_another_shares_its_warm_process_has_its_step_told(
    running, forks, package, tmp_path
):
    running("pass")
    variables, descriptors = forks.handed_on()
    code = "import os, signal; print(os.getpid()); signal.pause()"
    words = [sys.executable, "-c", RUNNER, str(package), str(tmp_path / "b.log"), code]
    other = subprocess.Popen(words, env={**os.environ, **variables}, pass_fds=descriptors)
    step = int(wait_for_text(tmp_path / "b.log", "\n"))
    other.kill()
    other.wait()
    assert gone(step, 5)
    assert running("print('still here')").tail == ("still here",)


def test_nothing_of_the_warm_process_can_be_reached_from_outside(running, forks):
    running("pass")
    server = next(iter(forks._servers.values()))
    assert server.control.getsockname() in ("", b"")  # unnamed: neither a path nor an abstract name
    listening = {line.split()[6]: line.split()[7:] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    inodes = {
        str(path.readlink())[8:-1]
        for path in Path(f"/proc/{server.process.pid}/fd").iterdir()
        if "socket" in str(path.readlink())
    }
    assert inodes
    assert all(not listening.get(inode) for inode in inodes)


def gone(pid, seconds):
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        return bool(ended.poll(seconds * 1000))
    finally:
        os.close(handle)


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_for_text(path, text):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and text in path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{path}: expected {text!r}")
