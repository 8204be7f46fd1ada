"""One real MLServer with the runtime in it, asked as a client would ask."""

import asyncio
import contextlib
import http.client
import json
import socket
import struct
import urllib.error
import urllib.request

import aiohttp
import numpy as np
import pytest

from holdfast.artifacts.folder import Ref
from holdfast.errors import RolloutError
from holdfast.processes import children, reserved_ports, wait_ready
from holdfast.serving.predictor.core import load_predictor
from holdfast.serving.predictor.intake import Budget
from holdfast.serving.protocol import body, read_reply
from holdfast.serving.rollout.contract.served_arm import served_arm
from holdfast.serving.rollout.local.servers import server_ready, start_server
from tests.faults.live.malformed import Target, for_servers


@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    """REST and gRPC port of a server that is ready."""

    async def ready(child, port):
        async with aiohttp.ClientSession() as session:
            await wait_ready(child, lambda: server_ready(session, port, "tiny"))

    with children() as started, reserved_ports(2) as (rest, grpc):
        folder = tmp_path_factory.mktemp("server")
        started.append(start_server(folder, "stable", served_arm("tiny", 7, bundle), rest=rest, grpc=grpc))
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


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def send(port, data):
    """Status and body of the answer to raw bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with contextlib.suppress(ConnectionError):  # refused before all of it was sent
            connection.sendall(data)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


def request_body(data, shape=(1, 1, 8, 8), datatype="FP32", name="input"):
    tensor = {"name": name, "shape": list(shape), "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


def test_rest_answers_are_those_of_the_core(server, bundle):
    x = np.load(bundle / "replay.npz")["x"][:5]
    expected = load_predictor(Ref(bundle / "model"), Ref(bundle / "decision")).answer(x)
    answers = [ask(server[0], body(row)) for row in x]
    assert [status for status, _ in answers] == [200] * 5
    assert [read_reply(data, 10).label for _, data in answers] == expected.label.tolist()
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
    assert labels == [read_reply(ask(server[0], body(row))[1], 10).label]


def test_metadata_has_the_models_contract_and_is_the_same_over_rest_and_grpc(server):
    import grpc
    from mlserver.grpc import dataplane_pb2 as pb
    from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

    found = json.loads(get(server[0], "/v2/models/tiny")[1])
    rest = {tensor["name"]: tensor for tensor in (*found["inputs"], *found["outputs"])}
    assert (rest["input"]["datatype"], rest["input"]["shape"]) == ("FP32", [-1, 1, 8, 8])
    assert json.loads(rest["input"]["parameters"]["range"]) == [0.0, 1.0]
    assert json.loads(rest["label"]["parameters"]["classes"]) == list("0123456789")
    with grpc.insecure_channel(f"127.0.0.1:{server[1]}") as channel:
        answer = GRPCInferenceServiceStub(channel).ModelMetadata(pb.ModelMetadataRequest(name="tiny"), timeout=10)
    for tensor in (*answer.inputs, *answer.outputs):
        same = rest[tensor.name]
        assert (tensor.datatype, list(tensor.shape)) == (same["datatype"], same["shape"])
        assert {key: value.string_param for key, value in tensor.parameters.items()} == same["parameters"]


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


def test_each_kind_of_wrong_request_is_a_4xx_of_one_line(server):
    """The table is that of the run with hostile clients; what a router refuses is tested with the router."""
    target = Target("tiny", (1, 8, 8), (0.5,) * 64)
    for wrong in for_servers(target):
        status, answer = send(server[0], wrong.data)
        assert status in wrong.statuses, (wrong.name, answer)
        error = json.loads(answer)["error"]
        assert error.isprintable(), wrong.name
        assert "expected" in error, wrong.name
        assert len(error) < 400, wrong.name
    assert send(server[0], target.post(target.body()))[0] == 200


@pytest.mark.parametrize("given", ["order-17", "é", "", "παραγγελία-17", "a" * 256, "☃" * 256])
def test_an_id_comes_back_in_any_script(server, given):
    body = json.loads(request_body([0.5] * 64))
    status, answer = ask(server[0], json.dumps({**body, "id": given}).encode())
    assert (status, json.loads(answer)["id"]) == (200, given)


def test_odd_requests_that_are_right_are_answered(server):
    """Nested and whole numbers, unknown fields, parameters, a repeated key: the protocol allows them."""
    row = json.loads(request_body([0] * 64))["inputs"][0]
    nested = {**row, "data": np.full((1, 1, 8, 8), 0.5).tolist(), "parameters": {"content_type": "pd"}}
    bodies = [{"inputs": [row], "x": 1}, {"inputs": [nested], "parameters": {"content_type": "pickle", "a": [1]}}]
    texts = [json.dumps(body) for body in bodies]
    texts.append(texts[0].replace('"x": 1', '"inputs": [], "inputs": ' + json.dumps([row])))
    assert [ask(server[0], text.encode())[0] for text in texts] == [200] * 3


def row_of(shape, nested):
    flat = [0.5] * 63 + [1]
    return {"name": "input", "datatype": "FP32", "shape": shape, "data": nested(flat)}


def test_lists_may_be_nested_as_the_shape_and_not_otherwise(server):
    """The specification has tensors flat; where they are nested, only their own shape gives one order of numbers."""
    shaped = json.dumps({"inputs": [row_of([1, 1, 8, 8], lambda flat: np.reshape(flat, (1, 1, 8, 8)).tolist())]})
    turned = json.dumps({"inputs": [row_of([1, 1, 8, 8], lambda flat: np.reshape(flat, (1, 64)).tolist())]})
    assert ask(server[0], shaped.encode())[0] == 200
    status, answer = ask(server[0], turned.encode())
    assert (status, b"expected a flat list, or lists nested as the shape" in answer) == (400, True)


def test_only_the_outputs_that_were_asked_for_are_given(server):
    body = json.loads(request_body([0.5] * 64))
    status, answer = ask(server[0], json.dumps({**body, "outputs": [{"name": "label"}]}).encode())
    assert status == 200
    assert [output["name"] for output in json.loads(answer)["outputs"]] == ["label"]


def infer(port, **changes):
    """The status, and the details or the response, of a gRPC request for a grey picture, changed."""
    import grpc
    from mlserver.grpc.dataplane_pb2 import ModelInferRequest
    from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], **changes.pop("tensor", {})}
    if "raw_input_contents" not in changes:
        tensor.setdefault("contents", {"fp32_contents": [0.5] * 64})
    request = ModelInferRequest(**{"model_name": "tiny", "inputs": [tensor], **changes})
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            return "OK", GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)
        except grpc.RpcError as error:
            return error.code().name, error.details()


FLOATS = struct.pack("<64f", *[0.5] * 64)
WRONG_OVER_GRPC = {
    "too few raw bytes": ({"raw_input_contents": [FLOATS[:-4]]}, "expected 256 bytes for FP32"),
    "raw bytes that are no numbers": ({"raw_input_contents": [b"abc"]}, "expected 256 bytes for FP32"),
    "two raw tensors for one": ({"raw_input_contents": [FLOATS, FLOATS]}, "raw_input_contents: expected 1"),
    "raw bytes and contents": (
        {"raw_input_contents": [FLOATS], "tensor": {"contents": {"fp32_contents": [0.5] * 64}}}, "found both",
    ),
    "raw doubles": (
        {"raw_input_contents": [FLOATS * 2], "tensor": {"datatype": "FP64"}}, "expected datatype FP32 or INT64",
    ),
    "raw halves": (
        {"raw_input_contents": [FLOATS[:128]], "tensor": {"datatype": "FP16"}}, "expected datatype FP32 or INT64",
    ),
    "raw NaN": ({"raw_input_contents": [struct.pack("<64f", *[float("nan")] * 64)]}, "expected finite numbers"),
    "no contents": ({"tensor": {"contents": {}}}, "found 0"),
    "whole numbers as FP32": ({"tensor": {"contents": {"int64_contents": [1] * 64}}}, "expected fp32_contents"),
    "doubles as FP32": ({"tensor": {"contents": {"fp64_contents": [0.5] * 64}}}, "expected fp32_contents for FP32"),
    "booleans as FP32": ({"tensor": {"contents": {"bool_contents": [True] * 64}}}, "expected fp32_contents for FP32"),
    "contents of two datatypes": (
        {"tensor": {"contents": {"fp32_contents": [0.5] * 64, "int64_contents": [1]}}}, "expected fp32_contents",
    ),
    "a negative size": ({"tensor": {"shape": [-1, 1, 8, 8]}}, "sizes from 0 on"),
    "a negative size with raw bytes": (
        {"raw_input_contents": [FLOATS], "tensor": {"shape": [-1, 1, 8, 8]}}, "sizes from 0 on",
    ),
    "sizes whose product is beyond 2^64": (
        {"raw_input_contents": [FLOATS], "tensor": {"shape": [2**62, 2**62, 8, 8]}}, "bytes for FP32",
    ),
    "no shape": ({"tensor": {"shape": []}}, "expected a shape of 1 to 8 sizes"),
    "an unknown output": ({"outputs": [{"name": "no-such"}]}, "outputs: expected label or probabilities"),
    "no inputs": ({"inputs": []}, "expected one tensor named 'input'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_OVER_GRPC)
def test_each_kind_of_wrong_request_over_grpc_is_an_invalid_argument_of_one_line(server, name):
    changes, message = WRONG_OVER_GRPC[name]
    status, details = infer(server[1], **changes)
    assert (status, message in details) == ("INVALID_ARGUMENT", True), details
    assert details.isprintable()
    assert len(details) < 400


def test_right_requests_over_grpc_are_answered_with_their_id_and_outputs(server):
    for changes in ({}, {"raw_input_contents": [FLOATS]}, {"parameters": {"unknown": {"string_param": "x"}}}):
        status, found = infer(server[1], id="παραγγελία-17", outputs=[{"name": "label"}], **changes)
        assert (status, found.id, [output.name for output in found.outputs]) == ("OK", "παραγγελία-17", ["label"])


def test_two_inputs_of_one_name_over_grpc_are_refused(server):
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "contents": {"fp32_contents": [0.5] * 64}}
    assert infer(server[1], inputs=[tensor, tensor])[0] == "INVALID_ARGUMENT"


def test_there_is_no_stream_whose_errors_have_no_status(server):
    assert send(server[0], Target("tiny", (), ()).post(b"{}", path="/v2/models/tiny/infer_stream"))[0] == 404


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server):
    head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: models\r\n"
    status, answer = send(server[0], head + b"content-length: 150000000\r\n\r\n")
    assert (status, b"expected a body of at most 1572864 bytes" in answer) == (413, True)
    chunk = b"%x\r\n%s\r\n" % (2**20, b" " * 2**20)
    status, answer = send(server[0], head + b"transfer-encoding: chunked\r\n\r\n" + 2 * chunk)
    assert (status, b"expected a body of at most" in answer) == (413, True)


def test_bodies_wait_until_there_is_room_for_them():
    async def measure():
        budget, order = Budget(10), []

        async def hold(name, size):
            await budget.take(size)
            order.append(name)
            await asyncio.sleep(0.01)
            await budget.give(size)

        await asyncio.gather(hold("large", 8), hold("larger", 9), hold("small", 2))
        return order, budget.held

    assert asyncio.run(measure()) == (["large", "small", "larger"], 0)


def test_a_server_that_lost_its_model_fails_and_is_not_ready(server):
    """An unload comes over gRPC, for which no client of a rollout has a route; REST refuses it."""
    import grpc
    from mlserver.grpc import model_repository_pb2 as messages
    from mlserver.grpc.model_repository_pb2_grpc import ModelRepositoryServiceStub

    paths = ("/v2/models/tiny/ready", "/v2/health/ready", "/v2/models/tiny", "/v2/models/tiny/versions/7/ready")
    with grpc.insecure_channel(f"127.0.0.1:{server[1]}") as channel:
        stub = ModelRepositoryServiceStub(channel)
        stub.RepositoryModelUnload(messages.RepositoryModelUnloadRequest(model_name="tiny"), timeout=10)
        lost = [ask(server[0], request_body([0.5] * 64)), *(get(server[0], path) for path in paths)]
        stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="tiny"), timeout=30)
    assert [status for status, _ in lost] == [503] * 5
    assert b"model tiny is not loaded" in lost[0][1]
    assert [get(server[0], path)[0] for path in paths] == [200] * 4
    assert get(server[0], "/v2/models/tiny/versions/8/ready")[0] == 404
    assert send(server[0], Target("tiny", (), ()).post(b"", path="/v2/repository/models/tiny/unload"))[0] == 404


def test_a_taken_port_is_named(server, bundle, tmp_path):
    with pytest.raises(RolloutError, match=f"127.0.0.1:{server[0]}: expected a free port, found it taken"):
        start_server(tmp_path, "stable", served_arm("tiny", 1, bundle), rest=server[0], grpc=server[1])
