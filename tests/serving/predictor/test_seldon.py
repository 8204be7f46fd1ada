"""The Seldon wrapper as real processes, beside MLServer: equal answers, equal refusals, loopback only, nobody left."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from holdfast.artifacts.contract import as_texts
from holdfast.artifacts.documents import Model
from holdfast.artifacts.folder import Ref, load
from holdfast.processes import children, reserved_ports, start, wait_ready
from holdfast.serving.predictor.core import load_predictor
from holdfast.serving.predictor.options import Options
from holdfast.serving.predictor.settings import Served, write_settings
from holdfast.serving.rollout.local.servers import server_ready

ENVIRONMENT = Path(__file__).parents[3] / ".venv-seldon"
PYTHON = ENVIRONMENT / "bin" / "python"
CLIENT = Path(__file__).with_name("seldon_client.py")
FACE = "holdfast.serving.predictor.seldon_face"
OPTIONS = Options(temperature=2.0, max_rows=8)

pytestmark = pytest.mark.skipif(
    not (ENVIRONMENT / ".done").exists(),
    reason=f"{ENVIRONMENT}: expected Seldon's environment: make .venv-seldon/.done",
)


def in_a_namespace():
    """What a command runs under to have a network of its own; skips where the kernel forbids it."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare -rn: expected a network namespace, found none allowed; the wrapper listens everywhere")
    return [unshare, "-rn"]


def parameters(bundle, **options):
    kinds = {str: "STRING", float: "FLOAT", int: "INT", bool: "BOOL"}
    named = {"model": f"{bundle}/model", "decision": f"{bundle}/decision", **options}
    return json.dumps([{"name": k, "value": str(v), "type": kinds[type(v)]} for k, v in named.items()])


def face(bundle, rest, grpc, **options):
    ports = ["--http-port", str(rest), "--grpc-port", str(grpc)]
    return [str(PYTHON), "-m", FACE, *ports, "--parameters", parameters(bundle, **options)]


def client(*arguments, under=()):
    command = [*under, str(PYTHON), str(CLIENT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def face_ready(port):
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ping", timeout=2):
        return True
    return False


@pytest.fixture(scope="module")
def rows(bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(path, np.load(bundle / "replay.npz")["x"][:5])
    return path


@pytest.fixture(scope="module")
def seldon(bundle, tmp_path_factory):
    """Child, REST and gRPC port of the loopback face."""
    with children() as started, reserved_ports(2) as (rest, grpc):
        command = face(bundle, rest, grpc, temperature=2.0, max_rows=8)
        started.append(start("seldon", command, tmp_path_factory.mktemp("seldon")))
        asyncio.run(wait_ready(started[0], lambda: face_ready(rest)))
        yield started[0], rest, grpc


@pytest.fixture(scope="module")
def answers(seldon, rows):
    return client("ask", *seldon[1:], rows)


@pytest.fixture(scope="module")
def mlserver_answers(bundle, rows, tmp_path_factory):
    """What MLServer gives over REST and gRPC for the same rows and options."""

    async def ready(child, port):
        async with aiohttp.ClientSession() as session:
            await wait_ready(child, lambda: server_ready(session, port, "tiny"))

    folder = tmp_path_factory.mktemp("mlserver")
    with children() as started, reserved_ports(2) as (rest, grpc):
        served = Served("tiny", 1, Ref(bundle / "model"), Ref(bundle / "decision"), options=OPTIONS)
        spec = load(served.model, Model).document.input
        write_settings(folder, served, spec, 10, rest=rest, grpc=grpc)
        started.append(start("mlserver", [sys.executable, "-m", "holdfast.serving.predictor", str(folder)], folder))
        asyncio.run(ready(started[0], rest))
        return over_rest(rest, np.load(rows)), over_grpc(grpc, np.load(rows))


def v2_request(x):
    tensor = {"name": "input", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def over_rest(port, x):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/tiny/infer", v2_request(x), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        found = {output["name"]: output["data"] for output in json.loads(response.read())["outputs"]}
    return found["label"], found["probabilities"]


def over_grpc(port, x):
    import grpc
    from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
    from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
    from mlserver.types import InferenceRequest

    request = InferenceRequest.model_validate_json(v2_request(x))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        found = stub.ModelInfer(ModelInferRequestConverter.from_types(request, model_name="tiny"), timeout=10)
    outputs = {o.name: list(o.data.root) for o in ModelInferResponseConverter.to_types(found).outputs}
    return outputs["label"], outputs["probabilities"]


def seldon_answers(found):
    """Label and probabilities of the three ways to ask the wrapper."""
    for way in ("ndarray", "tensor"):
        status, answer = found[way]
        assert status == 200
        data = answer["data"]
        values = np.ravel(data["ndarray"]) if way == "ndarray" else data["tensor"]["values"]
        yield answer["meta"]["tags"]["labels"], values
    yield found["grpc"]["labels"], found["grpc"]["values"]


def test_metadata_has_the_contract_that_mlserver_shows(seldon, bundle):
    with urllib.request.urlopen(f"http://127.0.0.1:{seldon[1]}/metadata", timeout=10) as response:
        found = json.loads(response.read())
    assert found["inputs"][0]["schema"]["shape"] == [1, 8, 8]
    assert found["custom"] == as_texts(load(Ref(bundle / "model"), Model).document)


def test_both_faces_give_equal_predictions_over_rest_and_grpc(answers, mlserver_answers, bundle, rows):
    core = load_predictor(Ref(bundle / "model"), Ref(bundle / "decision"), OPTIONS).answer(np.load(rows))
    found = [*mlserver_answers, *seldon_answers(answers)]
    assert len(found) == 5
    for labels, probabilities in found:
        assert labels == core.label.tolist()
        # float32 has 24 bits: 6e-8 of a number is its last place; the sums of one network may differ by a few.
        np.testing.assert_allclose(probabilities, core.probabilities.ravel(), rtol=1e-6)


def test_an_answer_names_the_classes_and_the_very_model(answers, bundle):
    digest = load(bundle / "model", Model).digest
    assert answers["ndarray"][1]["data"]["names"] == answers["grpc"]["names"] == list("0123456789")
    assert answers["ndarray"][1]["meta"]["tags"]["model"] == answers["grpc"]["model"] == digest
    assert (answers["health"], answers["grpc"]["shape"]) == (200, [5, 10])


def test_a_clients_mistake_says_what_was_expected(answers):
    assert answers["wrong"][0] == answers["text"][0] == 400
    assert answers["wrong"][1]["status"]["info"] == "input: expected shape [1..8, 1, 8, 8], found [1, 1]"
    assert answers["text"][1]["status"]["info"] == "input: expected an array of numbers, found str"
    assert "input: expected values in [0, 1], found" in answers["grpc_wrong"]["error"]


def test_a_request_that_cannot_be_read_is_the_clients_mistake(answers):
    assert [status for status, _ in answers["unreadable"]] == [400] * len(answers["unreadable"])
    assert all(answer["status"]["info"].isprintable() for _, answer in answers["unreadable"])


def test_what_the_wrapper_would_misread_is_refused_over_rest_and_grpc(answers):
    for name, (status, answer) in answers["misread"].items():
        assert (status, "expected" in answer["status"]["info"]) == (400, True), (name, answer)
    for name, answer in answers["misread_grpc"].items():
        assert (answer.get("code"), "expected" in answer.get("error", "")) == ("INVALID_ARGUMENT", True), (name, answer)
    assert len(answers["misread"]) + len(answers["misread_grpc"]) == 19


def test_an_id_comes_back_and_a_packed_body_is_the_clients_mistake(answers):
    assert answers["puid"][1]["meta"]["puid"] == answers["grpc"]["puid"] == "order-17"
    assert answers["gzip"] in (200, 400, 415)
    assert answers["grpc_wrong"]["code"] == "INVALID_ARGUMENT"


def test_the_face_listens_on_loopback_alone(seldon):
    child, rest, grpc = seldon
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{child.process.pid}/net/{table}").read_text().splitlines()[1:]:
            local, _, state = line.split()[1:4]
            if state == "0A" and int(local.rpartition(":")[2], 16) in (rest, grpc):
                addresses.add(local.rpartition(":")[0])
    # 127.0.0.1 as Linux writes it, alone and mapped into IPv6.
    assert addresses == {"0100007F", "0000000000000000FFFF00000100007F"}


def test_the_wrappers_own_command_serves_the_class_and_leaves_nobody(bundle, rows):
    command = [ENVIRONMENT / "bin" / "seldon-core-microservice", f"{FACE}.HoldfastModel"]
    given = ["--parameters", parameters(bundle, temperature=2.0)]
    found = client("alone", 9000, 5000, rows, *command, *given, under=in_a_namespace())
    core = load_predictor(Ref(bundle / "model"), Ref(bundle / "decision"), OPTIONS).answer(np.load(rows))
    for labels, probabilities in seldon_answers(found):
        assert labels == core.label.tolist()
        np.testing.assert_allclose(probabilities, core.probabilities.ravel(), rtol=1e-6)
    assert (found["code"], found["left"]) == (0, [])


def test_the_wrappers_own_command_ends_with_3_for_altered_bytes(bundle, rows, tmp_path):
    own = altered(bundle, tmp_path)
    command = [ENVIRONMENT / "bin" / "seldon-core-microservice", f"{FACE}.HoldfastModel"]
    given = ["--parameters", parameters(own)]
    found = client("alone", 9000, 5000, rows, *command, *given, under=in_a_namespace())
    said = [line for line in found["said"].splitlines() if line.startswith("error: ")]
    assert (found["code"], len(said), found["left"]) == (3, 1, [])
    assert "the model is not served" in said[0]


def run_face(bundle, **options):
    with reserved_ports(2) as (rest, grpc):
        command = face(bundle, rest, grpc, **options)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr.splitlines()[-1]


def test_the_face_ends_with_3_for_altered_bytes(bundle, tmp_path):
    code, said = run_face(altered(bundle, tmp_path))
    assert code == 3
    assert said.startswith("error: ")
    assert said.endswith("the model is not served")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "error: option 'temperature': expected a number in [0.001, 1000], found 0.0"),
        ({"game_day": "wrong=1"}, "error: game_day: expected none, game days are for the MLServer face"),
    ],
)
def test_the_face_ends_with_2_for_an_option_without_meaning(bundle, options, message):
    assert run_face(bundle, **options) == (2, message)


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_face_leaves_nobody(bundle, tmp_path, with_signal):
    with reserved_ports(2) as (rest, grpc):
        process = subprocess.Popen(face(bundle, rest, grpc), stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            deadline = time.monotonic() + 60
            while not asyncio.run(face_ready(rest)) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            assert len(session(process.pid)) == 2
            process.send_signal(with_signal)
            assert process.wait(10) == (0 if with_signal == signal.SIGTERM else -signal.SIGKILL)
            deadline = time.monotonic() + 5
            while session(process.pid) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert session(process.pid) == []
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_seldons_environment_knows_no_mlserver():
    code = f"import sys, {FACE}; print(sorted({{'mlserver', 'mlflow', 'kfp'}} & set(sys.modules)))"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
    assert subprocess.run([PYTHON, "-c", "import mlserver"], capture_output=True, check=False).returncode == 1


def altered(bundle, folder):
    own = shutil.copytree(bundle, folder / "bundle")
    weights = own / "model" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    return own


def session(leader):
    """Living processes of the session that `leader` began."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, sid = path.read_text().rpartition(")")[2].split()[:4]
            if int(sid) == leader and state != "Z":
                found.append(path.parent.name)
    return found
