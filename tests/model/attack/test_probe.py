"""A served model attacked over HTTP, on a real local server."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.compute import Compute
from holdfast.errors import ModelError
from holdfast.model.attack.endpoint import Endpoint
from holdfast.model.attack.probe import probe
from holdfast.workload.schema import Workload

CLASSES = tuple(map(str, range(10)))


@contextmanager
def served(answer) -> Iterator[str]:  # type: ignore[no-untyped-def]
    """`answer` takes the rows of a request and returns the outputs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            tensor = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"][0]
            rows = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
            body = json.dumps(answer(rows)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v2/models/digits"
    finally:
        server.shutdown()
        server.server_close()


def labels(net: nn.Module, rows: np.ndarray) -> list[int]:  # type: ignore[type-arg]
    with torch.no_grad():
        return [int(label) for label in net(torch.from_numpy(rows)).argmax(1)]


def test_a_plain_model_falls_to_questions_alone(
    plain_net: nn.Module, digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    def answer(rows: np.ndarray) -> object:  # type: ignore[type-arg]
        return {"outputs": [{"name": "label", "shape": [len(rows)], "data": labels(plain_net, rows)}]}

    workload = Workload.model_validate(
        {
            "name": "digits",
            "modality": "image",
            "data": {"source": "sklearn:digits"},
            "network": {"architecture": "cnn"},
            "threat": {"norm": "linf", "epsilon": "3/10"},
            "attack": {"tier": "nightly", "examples": 20},
        }
    )
    with served(answer) as url:
        made = probe(url, Ref(digits.folder), tmp_path / "p", workload=workload, settings=Compute(seed=0)).document
    assert [attack.name for attack in made.attacks] == ["hop-skip-jump"]
    assert made.clean.k >= 18
    assert made.worst_case.k <= made.clean.k - 8
    assert set(made.inputs) == {"snapshot"}


@pytest.mark.parametrize("kind", ["index", "name", "scores"])
def test_classes_are_read_as_the_server_writes_them(kind: str) -> None:
    def answer(rows: np.ndarray) -> object:  # type: ignore[type-arg]
        data = {"index": [3] * len(rows), "name": ["3"] * len(rows), "scores": np.eye(10)[[3] * len(rows)].ravel()}
        shape = [len(rows), 10] if kind == "scores" else [len(rows)]
        return {"outputs": [{"name": "out", "shape": shape, "data": list(data[kind])}]}

    with served(answer) as url:
        endpoint = Endpoint(url, CLASSES)
        assert endpoint(torch.zeros(70, 1, 8, 8)).argmax(1).tolist() == [3] * 70
        assert endpoint.asked == 70


@pytest.mark.parametrize(
    ("outputs", "found"),
    [
        ({"error": "no"}, "expected outputs, found"),
        ({"outputs": [{"name": "label", "shape": [1], "data": [3]}]}, "expected an output of 2 rows"),
        ({"outputs": [{"name": "label", "shape": [2], "data": [3, 11]}]}, "expected a class of .* found 11"),
        ({"outputs": [{"name": "s", "shape": [2, 3], "data": [0.0] * 6}]}, "expected 10 scores a row, found 3"),
    ],
)
def test_an_answer_beside_the_protocol_is_one_line(outputs: object, found: str) -> None:
    with served(lambda rows: outputs) as url, pytest.raises(ModelError, match=found):
        Endpoint(url, CLASSES)(torch.zeros(2, 1, 8, 8))


def test_nobody_there_and_no_http_are_one_line() -> None:
    with pytest.raises(ModelError, match="expected an http or https address, found 'file'"):
        Endpoint("file:///etc/passwd", CLASSES)
    with pytest.raises(ModelError, match="expected an answer of the V2 protocol, found"):
        Endpoint("http://127.0.0.1:9/v2/models/x", CLASSES)(torch.zeros(1, 1, 8, 8))
