"""What a step starts: forks of a warm process of its own, to the step the same as `subprocess.Popen`."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.steps import STEPS
from holdfast.warm import children
from holdfast_pipelines import warm
from holdfast_pipelines.local import _environment
from holdfast_pipelines.process import fresh, run_child
from holdfast_pipelines.warm import servers

STEP = "import sys\nexec(compile(sys.argv[2], 'step', 'exec'))\n"
# Writes all that it can see of its process that is not a number of its own, then does what it is told.
CHILD = """
import json, os, resource, signal, sys
seen = {
    "argv": sys.argv[1:], "folder": os.getcwd(), "path": sys.path, "environment": dict(sorted(os.environ.items())),
    "name": __name__, "descriptors": sorted(os.listdir("/proc/self/fd")),
    "threads": len(os.listdir("/proc/self/task")), "limits": [resource.getrlimit(number) for number in range(16)],
    "signals": [str(signal.getsignal(number)) for number in range(1, 32)],
    "mask": [str(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "executable": sys.executable, "stdin": sys.stdin.read(),
}
print(json.dumps(seen))
print("on standard error", file=sys.stderr)
"""
DOES = "import os, signal, sys, time\nexec(compile(sys.argv[1], 'child', 'exec'))\n"
# What the tests below have in common: `start(module, arguments)` with its output in `out`, here the step's own log.
BEFORE = """
import os, signal, socket, subprocess, sys, time
from pathlib import Path
from holdfast.warm import children
def start(module, *arguments, **given):
    return children.start(module, arguments, out=given.pop("out", 1), **given)
def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    for name, text in (("step", STEP), ("child", CHILD), ("does", DOES)):
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def running(package, tmp_path, monkeypatch):
    """Runs a step that starts others; in a process of its own with `start=fresh`."""
    monkeypatch.setattr(warm, "find", lambda name: replace(STEPS[0], name=name, libraries=(), starts_processes=True))
    with servers() as forks:

        def run(code, start=None):
            env = _environment(Path(sys.executable), None) | {"PYTHONPATH": str(package)}
            words = [sys.executable, "-m", "step", "starts", BEFORE + code]
            ended = run_child(words, env=env, log=tmp_path / "a.log", start=start or forks.start)
            assert ended.code == 0, ended.tail
            return ended.tail

        yield run


@pytest.fixture(params=["forks", "processes"])
def step(running, request):
    """Runs a step whose children are forks, and one whose children are processes of their own: both give the same."""
    return lambda code: running(code, None if request.param == "forks" else fresh)


def test_what_a_step_starts_is_a_fork_of_a_warm_process_that_is_the_steps_own(running):
    code = """
child = start("does", "print(len(sys.modules) > 50); time.sleep(60)")
server = parent_of(child.pid)
print(parent_of(server) == os.getpid(), server != parent_of(os.getpid()), type(child).__name__)
child.kill()
"""
    assert running(code)[-1] == "True True Forked"
    assert running(code.replace("server) ==", "child.pid) =="), start=fresh)[-1] == "True True Popen"


def test_a_child_sees_what_a_process_of_its_own_sees(running, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    code = f"""
import resource, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
start("child", "one", "two", folder=Path({str(tmp_path / "elsewhere")!r}), env={{**os.environ, "SAID": "x"}}).wait()
"""
    (one, *rest), other = running(code), running(code, start=fresh)
    assert json.loads(one) == json.loads(other[0])
    assert rest == ["on standard error"]
    seen = json.loads(one)
    assert (seen["argv"], seen["environment"]["SAID"], seen["threads"]) == (["one", "two"], "x", 1)


@pytest.mark.parametrize(
    ("does", "expected"),
    [("pass", 0), ("sys.exit(7)", 7), ("1 / 0", 1), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)],
)
def test_its_end_is_seen_as_of_a_process(step, does, expected):
    seen = step(f"child = start('does', {does!r})\nprint(child.wait(20), child.poll(), child.returncode)")
    assert seen[-1] == " ".join([str(int(expected))] * 3)


def test_it_can_be_waited_for_told_and_killed(step):
    seen = step("""
from subprocess import TimeoutExpired
deaf = "signal.signal(signal.SIGTERM, lambda *_: print('told')); print('here')\\nwhile True: time.sleep(9)"
child = start("does", deaf)
while "here" not in Path("/proc/self/fd/1").resolve().read_text(): time.sleep(.02)
try: child.wait(.1)
except TimeoutExpired: print("waited", child.poll(), child.returncode)
child.terminate()
while "told" not in Path("/proc/self/fd/1").resolve().read_text(): time.sleep(.02)
child.kill()
print(child.wait(20))
child.kill()
child.send_signal(signal.SIGTERM)
""")
    assert seen == ("here", "waited None None", "told", "-9")


def test_it_is_talked_to_through_its_standard_input_and_output(step):
    seen = step("""
ours, theirs = socket.socketpair()
with theirs:
    child = start("does", "print(sys.stdin.readline()[::-1], flush=True)", stdin=theirs.fileno(), out=theirs.fileno(),
                  errors=2)
ours.sendall(b"abc\\n")
print(ours.makefile().read().split(), child.wait(20))
""")
    assert seen == ("['cba'] 0",)


def test_killing_its_warm_process_ends_it_and_the_next_is_a_process_of_its_own(running):
    seen = running("""
child = start("does", "time.sleep(60)", told=signal.SIGKILL)
os.kill(parent_of(child.pid), signal.SIGKILL)
print(child.wait(20), type(start("does", "pass")).__name__)
""")
    assert seen[-1] == "-9 Popen"


def test_threads_of_the_step_itself_do_not_keep_it_from_forking(running):
    # The step's own threads do not count: the fork is one of its warm process.
    seen = running("""
import threading
threading.Thread(target=time.sleep, args=(1,)).start()
print(type(start("does", "pass")).__name__)
""")
    assert seen[-1] == "Forked"


def test_being_told_to_stop_a_step_can_still_start_something_as_its_last_act(running):
    seen = running("""
def last(*_):
    start("does", "print('last act')").wait(20)
    os._exit(0)
signal.signal(signal.SIGTERM, last)
os.killpg(os.getpgrp(), signal.SIGTERM)
time.sleep(60)
""")
    assert seen[-1] == "last act"


def test_killing_the_step_outright_ends_what_it_started_but_not_what_may_outlive_it(package, tmp_path, monkeypatch):
    monkeypatch.setattr(warm, "find", lambda name: replace(STEPS[0], name=name, libraries=(), starts_processes=True))
    code = """
children_ = [start("does", "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)", told=signal.SIGKILL),
             start("does", "time.sleep(600)"), start("does", "time.sleep(600)", told=None, forks=True)]
print(parent_of(children_[0].pid), *(child.pid for child in children_), flush=True)
time.sleep(600)
"""
    with servers() as forks, (tmp_path / "a.log").open("wb") as log:
        env = _environment(Path(sys.executable), None) | {"PYTHONPATH": str(package)}
        child = forks.start([sys.executable, "-m", "step", "starts", BEFORE + code], env, log.fileno())
        server, hard, soft, free = numbers_in(tmp_path / "a.log")
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert [gone(pid, 5) for pid in (server, hard, soft)] == [True, True, True]
        assert not gone(free, 0.5)
    try:
        assert not gone(free, 0.5)  # nor does the end of the run end it
    finally:
        os.kill(free, signal.SIGKILL)


def test_the_runner_can_start_something_from_a_warm_process_too(tmp_path):
    python, env = Path(sys.executable), _environment(Path(sys.executable), None) | {"SAID": "x"}
    code = "import os; print(os.environ['SAID'], os.getppid())"
    with servers() as forks, (tmp_path / "a.log").open("wb") as log:
        for _ in range(2):
            with forks.lent(python, env):
                child = children.start("timeit", ["-n1", "-r1", code], out=log.fileno())
            assert (type(child), child.wait(20)) == (children.Forked, 0)
        server = forks._servers[python].process.pid
        assert children.start("timeit", ["-h"], out=log.fileno()).wait(20) == 0
    lines = (tmp_path / "a.log").read_text().splitlines()
    assert [line for line in lines if line.startswith("x ")] == [f"x {server}"] * 2


def numbers_in(path):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.read_text().endswith("\n"):
            return [int(word) for word in path.read_text().split()]
        time.sleep(0.02)
    raise AssertionError(path.read_text())


def gone(pid, seconds):
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended = select.poll()
    ended.register(handle, select.POLLIN)
    try:
        return bool(ended.poll(seconds * 1000))
    finally:
        os.close(handle)


def test_without_a_warm_process_a_child_that_may_outlive_its_parent_leads_a_session(tmp_path):
    says = "import os; print(os.getsid(0) == os.getpid())"
    program = (
        "import sys; from holdfast.warm import children\n"
        f"child = children.start('timeit', ['-n1', '-r1', {says!r}], out=1, told=None)\n"
        "sys.exit(child.wait(20))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True\n")
