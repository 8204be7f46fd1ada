"""One real MLServer with the runtime in it, asked as a client would ask."""

import asyncio
import json
import urllib.error
import urllib.request

import aiohttp
import numpy as np
import pytest

from holdfast.artifacts.folder import Ref
from holdfast.errors import RolloutError
from holdfast.serving.predictor.core import load_predictor
from holdfast.serving.rollout.replay.answers import read_label
from holdfast.serving.rollout.replay.rows import body
from holdfast.serving.rollout.site.processes import children, reserved_ports, wait_ready
from holdfast.serving.rollout.site.servers import server_ready, start_server
from holdfast.serving.rollout.site.side import side


@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    """REST and gRPC port of a server that is ready."""

    async def ready(child, port):
        async with aiohttp.ClientSession() as session:
            await wait_ready(child, lambda: server_ready(session, port, "tiny"))

    with children() as started, reserved_ports(2) as (rest, grpc):
        folder = tmp_path_factory.mktemp("server")
        started.append(start_server(folder, "stable", side("tiny", 7, bundle), rest=rest, grpc=grpc))
        asyncio.run(ready(started[0], rest))
        yield rest, grpc


def ask(port, data):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/tiny/infer", data=data, headers={"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def request_body(data, shape=(1, 1, 8, 8), datatype="FP32", name="input"):
    tensor = {"name": name, "shape": list(shape), "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


def test_rest_answers_are_those_of_the_core(server, bundle):
    x = np.load(bundle / "replay.npz")["x"][:5]
    expected = load_predictor(Ref(bundle / "model"), Ref(bundle / "decision")).answer(x)
    answers = [ask(server[0], body(row)) for row in x]
    assert [status for status, _ in answers] == [200] * 5
    assert [read_label(data, 10) for _, data in answers] == expected.label.tolist()
    outputs = {o["name"]: o for o in json.loads(answers[0][1])["outputs"]}
    np.testing.assert_allclose(outputs["probabilities"]["data"], expected.probabilities[0], rtol=1e-4)
    assert json.loads(answers[0][1])["model_version"] == "7"


def test_grpc_answers_are_those_of_rest(server, bundle):
    import grpc
    from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
    from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
    from mlserver.types import InferenceRequest

    row = np.load(bundle / "replay.npz")["x"][0]
    request = InferenceRequest.model_validate_json(body(row))
    with grpc.insecure_channel(f"127.0.0.1:{server[1]}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        found = stub.ModelInfer(ModelInferRequestConverter.from_types(request, model_name="tiny"), timeout=10)
    labels = {o.name: o.data.root for o in ModelInferResponseConverter.to_types(found).outputs}["label"]
    assert labels == [read_label(ask(server[0], body(row))[1], 10)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (request_body([0.5] * 63), "expected FP32 numbers for shape"),
        (request_body([0.5] * 63, shape=(1, 63)), "expected shape"),
        (request_body([9.0] * 64), "expected values in"),
        (request_body([0.5] * 64, name="x"), "expected one tensor named 'input'"),
        (request_body([0] * 64, datatype="INT64"), "expected float32, found int64"),
        (request_body(["a"] * 64, datatype="BYTES"), "expected datatype FP32 or INT64"),
    ],
)
def test_a_clients_mistake_is_a_400_that_says_what_was_expected(server, data, message):
    status, answer = ask(server[0], data)
    assert status == 400
    assert message in json.loads(answer)["error"]


def test_a_taken_port_is_named(server, bundle, tmp_path):
    with pytest.raises(RolloutError, match=f"127.0.0.1:{server[0]}: expected a free port, found it taken"):
        start_server(tmp_path, "stable", side("tiny", 1, bundle), rest=server[0], grpc=server[1])
