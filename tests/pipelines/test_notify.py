"""Messages about the end of a run, posted to a real server on this machine that can be slow, broken or silent."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast.artifacts.documents import Anomaly, Check, GateDecision, SchemaReport, Verdict
from holdfast.artifacts.folder import save
from holdfast.cli import app
from holdfast.errors import RunError, WorkloadError
from holdfast_pipelines import notify
from holdfast_pipelines.ending import notified
from holdfast_pipelines.folder import place_of
from holdfast_pipelines.notify import RunMessage, of_status, post, refusal, url_of
from holdfast_pipelines.record import RunResult, StepRecord

TOKEN = "T0KEN-of-a-webhook"
MESSAGE = RunMessage("failed", "digits", "nightly", "FAILED")


@dataclass
class Receiver:
    """What the server does, and what it was sent."""

    url: str = ""
    status: list[int] = field(default_factory=list)
    """One entry per answer that is none of 200."""
    hang: bool = False
    taken: list[dict[str, Any]] = field(default_factory=list)
    tries: int = 0
    released: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    found = Receiver()
    monkeypatch.setattr(notify, "WAITS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(notify, "SECONDS", 0.5)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            found.tries += 1
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            if found.hang:
                found.released.wait(10)
                return
            status = found.status.pop(0) if found.status else 200
            if status == 200:
                found.taken.append(json.loads(sent))
            self.send_response(status)
            self.send_header("Location", f"{found.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keeps the test's output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/services/{TOKEN}?sig={TOKEN}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def decision() -> GateDecision:
    check = Check(
        name="robust_accuracy", measured=0.41, required="at least 0.5", verdict=Verdict.FAIL,
        reason="<!channel> [x](http://evil) pgd",
    )  # fmt: skip
    return GateDecision(
        name="digits", policy="0" * 64, policy_name="p", alpha=0.05, checks=(check,), verdict=Verdict.FAIL
    )


def schema() -> SchemaReport:
    anomaly = Anomaly(column="age", kind="MISSING", detail="column dropped")
    return SchemaReport(source="champion", columns=3, rows=9, anomalies=(anomaly,), verdict=Verdict.FAIL)


def test_a_message_is_taken(receiver: Receiver) -> None:
    assert post(receiver.url, MESSAGE)
    assert receiver.taken == [json.loads(MESSAGE.body())]
    assert receiver.taken[0]["text"] == "digits: the run failed (run nightly, FAILED)"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_recovers_is_asked_again(receiver: Receiver, status: int) -> None:
    receiver.status = [status, status]
    assert post(receiver.url, MESSAGE)
    assert (receiver.tries, len(receiver.taken)) == (3, 1)


@pytest.mark.parametrize(("status", "tries"), [(500, 4), (404, 1), (302, 1)])
def test_a_server_that_refuses_costs_one_line_without_the_address(
    receiver: Receiver, capsys: pytest.CaptureFixture[str], status: int, tries: int
) -> None:
    receiver.status = [status] * 9
    assert not post(receiver.url, MESSAGE)
    said = capsys.readouterr().err
    assert said == f"notify: 127.0.0.1 did not take the message: status {status}; the run is not affected\n"
    assert receiver.tries == tries


def test_a_server_that_hangs_is_left(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    receiver.hang = True
    began = time.monotonic()
    assert not post(receiver.url, MESSAGE)
    assert time.monotonic() - began < 10
    said = capsys.readouterr().err
    assert "no whole answer within 0.5 s" in said
    assert TOKEN not in said


def test_nothing_that_listens_costs_one_line(capsys: pytest.CaptureFixture[str], receiver: Receiver) -> None:
    assert not post(f"http://127.0.0.1:9/{TOKEN}", MESSAGE)
    assert TOKEN not in capsys.readouterr().err


# --- what is in it ----------------------------------------------------------------------------------------------------


def test_a_refused_model_and_a_refused_delivery_are_of_different_kinds() -> None:
    model = json.loads(refusal(decision(), workload="digits", run="r1", link="http://ui/r1").body())
    assert (model["kind"], model["verdict"], model["link"]) == ("gate-refused", "fail", "http://ui/r1")
    assert model["reasons"] == [
        "robust_accuracy (fail): measured 0.41, required at least 0.5: <!channel> [x](http://evil) pgd"
    ]
    delivery = json.loads(refusal(schema(), workload="digits", run="r1", link="").body())
    assert (delivery["kind"], delivery["verdict"]) == ("delivery-refused", "fail")
    assert "age: column dropped" in delivery["reasons"][0]


def test_a_name_cannot_call_everybody_in_slack() -> None:
    text = json.loads(refusal(decision(), workload="digits", run="r1", link="").body())["text"]
    assert "<" not in text
    assert "&lt;!channel&gt;" in text


def test_a_message_stays_small_and_shows_no_credentials() -> None:
    reasons = ("postgresql://ann:hunter2@db/x?password=hunter2 refused", *("x" * 10_000 for _ in range(99)))
    body = RunMessage("failed", "digits", "r1", "FAILED", None, reasons).body()
    assert len(body) < 10_000
    assert b"hunter2" not in body


@pytest.mark.parametrize(
    ("status", "kind", "state", "reasons"),
    [
        ('{"state": "SUCCEEDED", "pipelineTaskName": "notified"}', "ended-well", "SUCCEEDED", []),
        ('{"state": "FAILED", "error": {"code": 9, "message": "train failed"}}', "failed", "FAILED", ["train failed"]),
        ('{"state": "CANCELLED", "error": null}', "failed", "CANCELLED", []),
        ("", "failed", "UNKNOWN", []),
        ("[" * 100_000, "failed", "UNKNOWN", []),
    ],
)
def test_the_final_status_of_kubeflow_is_read(status: str, kind: str, state: str, reasons: list[str]) -> None:
    found = json.loads(of_status(status, workload="digits", run="r1", link="").body())
    assert (found["kind"], found["state"], found["reasons"]) == (kind, state, reasons)


@pytest.mark.parametrize("url", ["", "ftp://x/y", "http://ann:pw@x/y", "http://", "env:HOLDFAST_NO_SUCH_URL"])
def test_an_url_that_is_none_is_refused_before_anything_runs(url: str) -> None:
    with pytest.raises(WorkloadError, match="expected an http or https URL without a user in it"):
        url_of(url)


# --- from a pod -------------------------------------------------------------------------------------------------------


def test_a_pod_posts_the_reasons_of_a_report(receiver: Receiver, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOLDFAST_NOTIFY_URL", receiver.url)
    found = save(tmp_path / "gate", decision())
    words = [f"--report={found.folder}@{found.digest}", "--workload=digits", "--run=r1", "--link=http://ui/#/runs/"]
    assert CliRunner().invoke(app, ["notify", *words]).exit_code == 0
    assert (receiver.taken[0]["kind"], receiver.taken[0]["link"]) == ("gate-refused", "http://ui/#/runs/r1")


def test_a_pod_that_is_not_heard_ends_well(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_NOTIFY_URL", receiver.url)
    receiver.status = [500] * 9
    ended = CliRunner().invoke(app, ["notify", '--status={"state": "FAILED"}', "--workload=digits", "--run=r1"])
    assert ended.exit_code == 0


# --- from a run on this machine ---------------------------------------------------------------------------------------


def test_a_local_run_posts_its_outcome_with_the_reasons(receiver: Receiver, tmp_path: Path) -> None:
    save(place_of(tmp_path, GateDecision), decision())
    steps = (StepRecord("gate", verdict="fail"),)
    with notified(receiver.url, "digits", tmp_path) as ended:
        ended.result = RunResult(workload="digits", seed=0, outcome="refused", steps=steps)
    found = receiver.taken[0]
    assert (found["kind"], found["state"], found["verdict"]) == ("gate-refused", "refused", "fail")
    assert "robust_accuracy" in found["reasons"][0]


def test_a_local_run_that_fails_is_posted_and_fails_as_before(receiver: Receiver, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="step train failed"), notified(receiver.url, "digits", tmp_path):
        raise RunError("step train failed\n  | more")
    assert (receiver.taken[0]["kind"], receiver.taken[0]["reasons"]) == ("failed", ["step train failed"])


def test_a_run_without_an_address_posts_nothing(receiver: Receiver, tmp_path: Path) -> None:
    with notified(None, "digits", tmp_path):
        pass
    assert receiver.tries == 0


def test_a_pod_needs_no_library_of_a_runner_to_post() -> None:
    without = "import sys; sys.modules.update(dict.fromkeys(('kfp', 'torch', 'jinja2', 'mlflow')))"
    code = f"{without}; import holdfast_pipelines.notify"
    subprocess.run([sys.executable, "-c", code], check=True)
