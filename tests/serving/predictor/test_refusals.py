"""A server that must not serve does not start, also by plain `mlserver start`, with a pool of workers or without."""

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import aiohttp
import pytest

from holdfast.artifacts.documents import Verdict
from holdfast.artifacts.folder import Ref
from holdfast.processes import children, reserved_ports, start, wait_ready
from holdfast.serving.predictor.options import Options
from holdfast.serving.predictor.settings import Served, write_settings
from holdfast.serving.rollout.local.servers import server_ready

MLSERVER = str(Path(sys.executable).with_name("mlserver"))


def write_server(folder, spec, bundle, *, rest, grpc, parallel_workers=0, **extra):
    served = Served("tiny", 1, Ref(bundle / "model"), Ref(bundle / "decision"), options=Options())
    write_settings(folder, served, spec, 10, rest=rest, grpc=grpc)
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps({**settings, "parallel_workers": parallel_workers}))
    change_extra(folder, **extra)


def change_extra(folder, **extra):
    model = json.loads((folder / "model-settings.json").read_text())
    model["parameters"]["extra"] |= extra
    (folder / "model-settings.json").write_text(json.dumps(model))


def alter(bundle):
    weights = bundle / "model" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))


def mlserver_start(folder):
    """Exit code and the lines of standard error that are ours; whatever it started is gone a moment later."""
    command = [MLSERVER, "start", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    _, said = process.communicate(timeout=60)
    deadline = time.monotonic() + 5
    while left := session(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    return process.returncode, [line for line in said.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("parallel_workers", [0, 1])
def test_mlserver_itself_ends_with_3_for_altered_bytes(bundle, tmp_path, spec, parallel_workers):
    own = shutil.copytree(bundle, tmp_path / "bundle")
    alter(own)
    with reserved_ports(2) as (rest, grpc):
        write_server(tmp_path / "server", spec, own, rest=rest, grpc=grpc, parallel_workers=parallel_workers)
        code, said = mlserver_start(tmp_path / "server")
    assert (code, len(said)) == (3, 1)
    assert "weights.safetensors: expected sha256" in said[0]
    assert "the model is not served" in said[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"verdict": Verdict.FAIL}, "expected verdict pass, found fail"),
        ({"judged": "a" * 64}, "expected a decision on model"),
    ],
)
def test_mlserver_itself_ends_with_3_for_a_verdict_that_does_not_help(make_bundle, tmp_path, spec, arguments, message):
    with reserved_ports(2) as (rest, grpc):
        write_server(tmp_path / "server", spec, make_bundle(seed=1, **arguments), rest=rest, grpc=grpc)
        code, said = mlserver_start(tmp_path / "server")
    assert (code, len(said)) == (3, 1)
    assert message in said[0]


def test_mlserver_itself_ends_with_3_without_a_decision(bundle, tmp_path, spec):
    own = shutil.copytree(bundle, tmp_path / "bundle")
    shutil.rmtree(own / "decision")
    with reserved_ports(2) as (rest, grpc):
        write_server(tmp_path / "server", spec, own, rest=rest, grpc=grpc)
        code, said = mlserver_start(tmp_path / "server")
    assert (code, len(said)) == (3, 1)
    assert "expected a file of an artifact, found none" in said[0]


@pytest.mark.parametrize("module", [[MLSERVER, "start"], [sys.executable, "-m", "holdfast.serving.predictor"]])
def test_an_option_without_meaning_ends_the_server_with_2(bundle, tmp_path, spec, module):
    with reserved_ports(2) as (rest, grpc):
        write_server(tmp_path / "server", spec, bundle, rest=rest, grpc=grpc, temperature=0)
        command = [*module, str(tmp_path / "server")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "error: option 'temperature': expected a number in [0.001, 1000], found 0\n" in done.stderr


def test_joining_requests_before_a_pool_of_workers_ends_the_server_with_2(bundle, tmp_path, spec):
    """There nobody could look at each request before MLServer strings their rows together."""
    with reserved_ports(2) as (rest, grpc):
        write_server(tmp_path / "server", spec, bundle, rest=rest, grpc=grpc, parallel_workers=1)
        path = tmp_path / "server" / "model-settings.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "max_batch_size": 8, "max_batch_time": 0.1}))
        code, said = mlserver_start(tmp_path / "server")
    assert (code, len(said)) == (2, 1)
    assert "max_batch_size: expected parallel_workers 0, found a pool of workers" in said[0]


def test_a_server_that_runs_keeps_its_model_when_it_is_told_to_load_an_altered_one(bundle, tmp_path, spec):
    own = shutil.copytree(bundle, tmp_path / "bundle")
    with children() as started, reserved_ports(2) as (rest, grpc):
        write_server(tmp_path / "server", spec, own, rest=rest, grpc=grpc)
        started.append(start("mlserver", [MLSERVER, "start", str(tmp_path / "server")], tmp_path))
        asyncio.run(ready(started[0], rest))
        alter(own)
        assert post(rest, "/v2/repository/models/tiny/load", b"") == 500
        tensor = {"name": "input", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}
        assert post(rest, "/v2/models/tiny/infer", json.dumps({"inputs": [tensor]}).encode()) == 200
        assert "the model is not served" in started[0].log.read_text()


async def ready(child, port):
    async with aiohttp.ClientSession() as session:
        await wait_ready(child, lambda: server_ready(session, port, "tiny"))


def post(port, path, data):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=data, headers={"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def session(leader):
    """Living processes of the session that `leader` began."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, sid = path.read_text().rpartition(")")[2].split()[:4]
            if int(sid) == leader and state != "Z":
                found.append(path.parent.name)
    return found
