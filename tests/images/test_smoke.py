"""An image in the restrictions of a pod: it starts, does its work, and can do nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast import containers
from tests.images import engine
from tests.images.engine import USER, Container, Mount, run

pytestmark = pytest.mark.usefixtures("images")
ROOT = Path(__file__).parents[2]
DIGITS = '{"name": "digits", "modality": "image", "data": {"source": "sklearn:digits", "range": [0, 16]}}'
SEES = """
import json, os, pathlib, shutil, socket
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
def fails(action):
    try:
        action()
    except OSError:
        return True
    return False
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(),
    "capabilities": int(status["CapEff"], 16), "bounded": int(status["CapBnd"], 16),
    "locked": int(status["NoNewPrivs"]),
    "root": fails(lambda: pathlib.Path("/x").write_text("")),
    "own": fails(lambda: pathlib.Path(os.environ["PATH"].split(":")[0], "x").write_text("")),
    "network": fails(lambda: socket.create_connection(("192.0.2.1", 80), 2)),
    "tools": [name for name in ("cc", "gcc", "g++", "make", "pip", "pip3", "uv", "git", "curl") if shutil.which(name)],
}))
"""


@pytest.mark.parametrize("environment", containers.ENVIRONMENTS)
def test_a_container_is_neither_root_nor_online_and_writes_nowhere(environment):
    done = run(Container(engine.image(environment), ["python", "-c", SEES]))
    assert done.code == 0, done.log
    assert json.loads(done.log) == {
        "user": USER, "group": USER, "capabilities": 0, "bounded": 0, "locked": 1,
        "root": True, "own": True, "network": True, "tools": [],
    }  # fmt: skip


def test_a_failing_step_is_seen_as_failed(pods):
    done = run(Container(engine.image("model"), ["python", "-m", "holdfast", "gate", "--out=/nowhere"]))
    assert done.code == 2


def test_a_step_that_takes_too_much_memory_is_killed():
    done = run(Container(engine.image("model"), ["python", "-c", "b = b'x' * 2**28"], memory="134217728"))
    assert done.code == 137


def test_a_snapshot_has_the_digest_that_it_has_without_a_container(pods):
    (pods / "in").mkdir(mode=0o777)
    (pods / "in").chmod(0o777)
    words = ["-m", "holdfast", "snapshot", f"--config={DIGITS}"]
    inside = [*words, "--out=/data/artifact", "--digest-file=/data/digest"]
    done = run(Container(engine.image("data"), ["python", *inside], mounts=[Mount(pods / "in", "/data")], memory="4G"))
    assert done.code == 0, done.log
    here = [sys.executable, *words, f"--out={pods / 'out'}", f"--digest-file={pods / 'digest'}"]
    subprocess.run(here, check=True, cwd=ROOT, capture_output=True)
    assert (pods / "in" / "digest").read_text() == (pods / "digest").read_text()
