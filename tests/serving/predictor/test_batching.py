"""MLServer's adaptive batching: answers stay what they are, and nobody pays for another's mistake."""

import asyncio
import json
import sys
import time

import aiohttp
import numpy as np
import pytest

from holdfast.artifacts.documents import Model
from holdfast.artifacts.folder import Ref, load
from holdfast.processes import children, reserved_ports, start, wait_ready
from holdfast.serving.predictor.core import load_predictor
from holdfast.serving.predictor.options import Options
from holdfast.serving.predictor.settings import Served, write_settings
from holdfast.serving.rollout.local.servers import server_ready

SECONDS = 0.5
OPTIONS = Options(temperature=2.0, decimals=4, max_rows=3)


@pytest.fixture(scope="module")
def url(bundle, tmp_path_factory):
    """A server that joins up to eight requests, or those of half a second."""
    folder = tmp_path_factory.mktemp("batching")
    with children() as started, reserved_ports(2) as (rest, grpc):
        served = Served("tiny", 1, Ref(bundle / "model"), Ref(bundle / "decision"), options=OPTIONS)
        spec = load(served.model, Model).document.input
        write_settings(folder, served, spec, 10, rest=rest, grpc=grpc)
        model = json.loads((folder / "model-settings.json").read_text())
        batching = {"max_batch_size": 8, "max_batch_time": SECONDS}
        (folder / "model-settings.json").write_text(json.dumps({**model, **batching}))
        started.append(start("server", [sys.executable, "-m", "holdfast.serving.predictor", str(folder)], folder))
        asyncio.run(ready(started[0], rest))
        yield f"http://127.0.0.1:{rest}/v2/models/tiny/infer"


async def ready(child, port):
    async with aiohttp.ClientSession() as session:
        await wait_ready(child, lambda: server_ready(session, port, "tiny"))


def request(rows, shape=None):
    data = rows.ravel().tolist() if isinstance(rows, np.ndarray) else rows
    return {"inputs": [{"name": "input", "shape": shape or list(rows.shape), "datatype": "FP32", "data": data}]}


def ask_at_once(url, bodies):
    async def one(session, body):
        async with session.post(url, json=body) as response:
            return response.status, await response.json()

    async def everything():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            return await asyncio.gather(*(one(session, body) for body in bodies))

    return asyncio.run(everything())


def outputs(answer):
    return {output["name"]: output for output in answer["outputs"]}


def test_joined_requests_get_the_answers_that_each_would_get_alone(url, bundle):
    x = np.load(bundle / "replay.npz")["x"]
    parts = [x[i : i + 1 + i % 3] for i in range(24)]
    predictor = load_predictor(Ref(bundle / "model"), Ref(bundle / "decision"), OPTIONS)
    begin = time.monotonic()
    answers = ask_at_once(url, [request(part) for part in parts])
    # Three full batches of eight do not wait for the clock; 24 lone requests would take 24 times half a second.
    assert time.monotonic() - begin < 24 * SECONDS / 2
    for part, (status, answer) in zip(parts, answers, strict=True):
        found, expected = outputs(answer), predictor.answer(part)
        assert status == 200
        assert found["label"]["data"] == expected.label.tolist()
        assert found["probabilities"]["shape"] == [len(part), 10]
        # One digit of the last place: a joined batch may be summed in another order.
        np.testing.assert_allclose(found["probabilities"]["data"], expected.probabilities.ravel(), atol=1.01e-4)


def test_a_lone_request_waits_for_company_which_shows_that_requests_are_joined(url, bundle):
    begin = time.monotonic()
    ((status, _),) = ask_at_once(url, [request(np.load(bundle / "replay.npz")["x"][:1])])
    assert status == 200
    assert time.monotonic() - begin >= SECONDS * 0.9


def test_a_wrong_request_is_refused_alone(url, bundle):
    """63 and 65 values make 128: strung together unseen they would shift each other's rows."""
    x = np.load(bundle / "replay.npz")["x"]
    expected = load_predictor(Ref(bundle / "model"), Ref(bundle / "decision"), OPTIONS).answer(x[:5])
    wrong = [request([0.5] * 63, [1, 1, 8, 8]), request([0.5] * 65, [1, 1, 8, 8]), request(x[:4]), request(x[:1] + 9)]
    answers = ask_at_once(url, [request(x[i : i + 1]) for i in range(5)] + wrong)
    assert [status for status, _ in answers] == [200] * 5 + [400] * 4
    assert [outputs(answer)["label"]["data"][0] for _, answer in answers[:5]] == expected.label.tolist()
    assert "expected shape [1..3, 1, 8, 8], found [4, 1, 8, 8]" in answers[7][1]["error"]
