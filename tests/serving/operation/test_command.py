"""`holdfast rollout guard` as a person runs it, against a stand-in of Prometheus: one regression, one good model."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs

import pytest
from typer.testing import CliRunner

from holdfast import registry
from holdfast.artifacts.documents import MonitoredStage, MonitorReport, Verdict
from holdfast.artifacts.folder import save
from holdfast.cli.app import app
from holdfast.monitor.kept import keep
from holdfast.registry import Version

TARGET = """
namespace: models
seldon-v1: {{deployment: loans, stable: main, candidate: {{name: b, graph: {{name: c, implementation: MLFLOW_SERVER,
  modelUri: "s3://models/sha256/{{digest}}"}}}}}}
metrics: {{prometheus: "{url}", series: mlserver, champion: {{model: loans}}, candidate: {{model: none}}}}
"""


@pytest.fixture
def prometheus():
    """Counters that grow with each look: 100 answers, and so many failures."""
    state = SimpleNamespace(failures=0, looks=0)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):  # noqa: N802
            query = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["query"][0]
            name = query.partition("{")[0]
            state.looks += name == "model_infer_request_success_total" and 'model=~"loans"' in query
            bad = state.failures * state.looks
            values = {
                "model_infer_request_success_total": 100 * state.looks - bad,
                "model_infer_request_failure_total": bad,
            }
            sample = [time.time(), str(values.get(name))]
            found = [{"metric": {"model": "loans"}, "values": [sample]}] if name in values else []
            data = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": found}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def taken_back(monkeypatch):
    """The registry has two versions; what is asked of it is kept."""
    asked = []
    tags = {"holdfast.model_digest": "a" * 64, registry.DECISION: "d" * 64}
    both = (Version(1, 0.0, tags, ("previous",)), Version(2, 0.0, tags, ("champion",)))
    monkeypatch.setattr(registry, "versions", lambda tracking, name: both)
    monkeypatch.setattr(registry, "tag", lambda *words: asked.append(json.loads(words[-1])["reason"]))
    monkeypatch.setattr(registry, "take_back", lambda *words: asked.append(words[-2:]))
    return asked


def run(tmp_path, prometheus, *more, seconds="1.5"):
    (tmp_path / "target.yaml").write_text(TARGET.format(url=prometheus.url))
    words = ["rollout", "guard", "--name", "loans", "--tracking", "x", "--only-registry", "--seconds", seconds]
    words += ["--target", str(tmp_path / "target.yaml"), "--state", str(tmp_path / "state.json")]
    plan = {"look_seconds": 0.05, "guarded": ["errors", "latency", "loss"]}
    return CliRunner().invoke(app, [*words, "--config", json.dumps(plan), *more])


def test_a_planted_regression_is_taken_back(tmp_path, prometheus, taken_back):
    prometheus.failures = 15
    found = run(tmp_path, prometheus, seconds="30")
    assert found.exit_code == 3, found.output
    assert taken_back[0].startswith("in operation: errors: a share above 0.02 is proven")
    assert taken_back[1:] == [(2, 1)]
    assert "version 1 is the champion again" in found.output


def test_a_good_model_stays(tmp_path, prometheus, taken_back):
    prometheus.failures = 1
    assert run(tmp_path, prometheus).exit_code == 0
    assert prometheus.looks > 2
    assert taken_back == []


def report(folder, stage):
    stages = tuple(
        MonitoredStage(stage=one, evidence=500, limit=250, seen=9, alarm=one == stage, reason="bound of the gate 0.06")
        for one in ("inputs", "model", "labels")
    )
    document = MonitorReport(
        name="loans", model="a" * 64, first="2026-01-01T00:00:00Z", last="2026-03-10T00:00:00Z", windows=2,
        stages=stages, columns=(), change="none", began=None, loss=None, selected=False, next="retrain", advice="",
        reason="", verdict=Verdict.FAIL,
    )  # fmt: skip
    keep(save(folder / stage, document), folder / "kept" / "loans", document.last)


@pytest.mark.parametrize(("stage", "code"), [("inputs", 0), ("model", 0), ("labels", 3)])
def test_a_proven_loss_takes_it_back_and_drift_alone_never(tmp_path, prometheus, taken_back, stage, code):
    report(tmp_path, stage)
    assert run(tmp_path, prometheus, "--kept", str(tmp_path / "kept"), seconds="0").exit_code == code
    assert len(taken_back) == (2 if code else 0)


def test_drift_cannot_be_named_as_a_reason(tmp_path, prometheus, taken_back):
    found = run(tmp_path, prometheus, "--config", '{"guarded": ["drift"]}')
    assert found.exit_code == 1
    assert taken_back == []
