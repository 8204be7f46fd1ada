"""Alarms of a monitor, sent to a stand-in of Alertmanager on this machine."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from holdfast.artifacts.documents import MonitoredStage, MonitorReport, Verdict
from holdfast.artifacts.folder import save
from holdfast.cli import app
from holdfast_pipelines import notify
from holdfast_pipelines.alerts import ALERTMANAGER, ALERTMANAGER_TOKEN, alerts, send
from holdfast_pipelines.notify import refusal

NOW = datetime(2026, 3, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
TOKEN = "a-token-that-no-log-has"


def report(alarm="labels"):
    stages = tuple(
        MonitoredStage(stage=stage, evidence=1, limit=2, seen=3, alarm=stage == alarm, reason="")
        for stage in ("inputs", "model", "labels")
    )
    return MonitorReport(
        name="loans", model="a" * 64, first="2026-01-01T00:00:00Z", last="2026-03-10T00:00:00Z", windows=2,
        stages=stages, columns=(), change="none", began=None, loss=None, selected=False, next="retrain",
        advice="look at it", reason="labels: evidence above the limit", verdict=Verdict.FAIL,
    )  # fmt: skip


@pytest.fixture
def alertmanager(monkeypatch):
    state = SimpleNamespace(asked=[], status=[])

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append((self.path, self.headers.get("Authorization"), body))
            self.send_response(state.status.pop(0) if state.status else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    monkeypatch.setattr(notify, "WAITS", (0.01, 0.01))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv(ALERTMANAGER, f"http://127.0.0.1:{server.server_port}/am/")
    yield state
    server.shutdown()
    server.server_close()


def test_an_alarm_lasts_three_times_the_schedule_and_the_others_end_now():
    found = {one["labels"]["stage"]: one for one in alerts(report(), NOW, HOUR, "http://kubeflow/run")}
    assert found["labels"]["labels"] == {
        "alertname": "HoldfastModelWorseThanApproved", "model": "loans", "stage": "labels", "severity": "critical",
    }  # fmt: skip
    assert found["labels"]["endsAt"] == "2026-03-10T03:00:00Z"
    assert found["inputs"]["endsAt"] == found["model"]["endsAt"] == "2026-03-10T00:00:00Z"
    assert found["inputs"]["labels"]["alertname"] == "HoldfastInputsChanged"
    assert found["labels"]["annotations"]["runbook_url"].endswith("runbooks/monitor.md#holdfastmodelworsethanapproved")
    assert found["labels"]["generatorURL"] == "http://kubeflow/run"


def test_alerts_are_sent_again_while_alertmanager_is_away(alertmanager):
    alertmanager.status = [503, 503]
    assert send(report(), {ALERTMANAGER_TOKEN: TOKEN}, NOW, HOUR, "")
    assert [(path, token) for path, token, _ in alertmanager.asked] == [("/am/api/v2/alerts", f"Bearer {TOKEN}")] * 3
    assert [one["labels"]["stage"] for one in alertmanager.asked[-1][2]] == ["inputs", "model", "labels"]


def test_a_refusal_is_one_line_without_the_token_and_fails_nothing(alertmanager, tmp_path, monkeypatch):
    alertmanager.status = [401]
    monkeypatch.setenv(ALERTMANAGER_TOKEN, TOKEN)
    made = save(tmp_path / "report", report())
    words = ["notify", "--workload", "loans", "--run", "r1", "--alerts", "--report", f"{made.folder}@{made.digest}"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0
    assert "did not take the message: status 401" in found.output
    assert TOKEN not in found.output


def test_a_report_without_a_stage_sends_nothing(alertmanager):
    nothing = report().model_copy(update={"stages": ()})
    assert send(nothing, {}, NOW, HOUR, "")
    assert alertmanager.asked == []


def test_the_message_about_an_alarm_has_what_to_do():
    message = json.loads(refusal(report(), workload="loans", run="r1", link="http://kubeflow/r1").body())
    assert (message["kind"], message["verdict"]) == ("alarm", "fail")
    assert message["reasons"] == ["labels: evidence above the limit", "look at it"]
    assert "the served model has an alarm" in message["text"]
