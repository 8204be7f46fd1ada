"""A retraining that the pipeline starts itself, against a stand-in of the API of Kubeflow Pipelines."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from holdfast.artifacts.folder import Ref
from holdfast.artifacts.requests import read_request
from holdfast.cli.app import app
from holdfast.errors import RunError, WorkloadError
from holdfast.monitor.request.step import request
from holdfast.monitor.starting import RetrainStart, start
from tests.monitor.test_asking import report


@pytest.fixture
def api():
    state = SimpleNamespace(asked=[], status=200)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append((self.path, self.headers.get("Authorization"), body))
            data = json.dumps({"run_id": "r1"}).encode()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state.how = RetrainStart(f"http://127.0.0.1:{server.server_port}", "e1", "p1", "v1", {"name": "loans", "seed": 0})
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def asked(tmp_path):
    return request(Ref(report(tmp_path / "report", "retrain").folder), tmp_path / "request", cooldown_days=7)


def test_the_run_gets_the_request(api, asked):
    assert start(api.how, asked, {"KFP_TOKEN": "secret"}) == "r1"
    ((path, token, body),) = api.asked
    assert (path, token) == ("/apis/v2beta1/runs", "Bearer secret")
    assert body["pipeline_version_reference"] == {"pipeline_id": "p1", "pipeline_version_id": "v1"}
    assert body["display_name"] == "loans because of 2026-03-10T00:00:00Z"
    given = body["runtime_config"]["parameters"]
    assert (given["name"], given["seed"]) == ("loans", 0)
    assert read_request(given["because"]).digest == asked.digest


def test_a_refusal_fails_the_step_and_is_not_tried_again(api, asked):
    api.status = 403
    with pytest.raises(RunError, match="the Kubeflow Pipelines API refused the retraining: 403"):
        start(api.how, asked, {})
    assert len(api.asked) == 1


def test_the_command_starts_it(api, asked, monkeypatch):
    monkeypatch.delenv("KFP_TOKEN", raising=False)
    words = ["monitor", "start", "--request", f"{asked.folder}@{asked.digest}", "--start"]
    found = CliRunner().invoke(app, [*words, json.dumps(vars(api.how))])
    assert (found.exit_code, found.stdout) == (0, "run: r1\n")


def test_what_is_no_start_is_named():
    with pytest.raises(WorkloadError, match="--start: expected what `holdfast submit` makes"):
        RetrainStart.parse('{"endpoint": "http://x"}')
