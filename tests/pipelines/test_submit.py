"""Submitting, against an HTTP stand-in of the KFP v2beta1 API that remembers what it was asked."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from holdfast.cli import app
from holdfast.errors import RunError, WorkloadError
from holdfast_pipelines.cluster import ClusterSettings
from holdfast_pipelines.submit import six_fields, submit

WORKLOAD = """
name: toy
modality: image
data: {source: 'sklearn:digits'}
network: {architecture: cnn}
threat: {norm: linf, epsilon: 8/255}
"""


class Kubeflow(BaseHTTPRequestHandler):
    """Just enough of the API: experiments, pipelines, versions, runs, recurring runs."""

    state: SimpleNamespace

    def log_message(self, *_):
        pass

    def answer(self, body, code=200):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):  # noqa: N802
        path, query = urlsplit(self.path).path.removeprefix("/apis/v2beta1"), parse_qs(urlsplit(self.path).query)
        self.state.asked.append(("GET", path, self.headers.get("Authorization")))
        if path == "/healthz":
            return self.answer({"multi_user": False})
        if self.state.refuse:
            return self.answer({"message": "who are you?"}, 401)
        name = (
            next(iter(json.loads(query["filter"][0])["predicates"]), {}).get("stringValue")
            if "filter" in query
            else None
        )
        if path == "/experiments":
            return self.answer({"experiments": [e for e in self.state.experiments if e["display_name"] == name]})
        if path == "/pipelines":
            return self.answer({"pipelines": [p for p in self.state.pipelines if name in (None, p["display_name"])]})
        if path.endswith("/versions"):
            pipeline = path.split("/")[2]
            return self.answer({"pipeline_versions": [v for v in self.state.versions if v["pipeline_id"] == pipeline]})
        if path.startswith("/runs/"):
            found = self.state.ends.pop(0)
            return self.answer({"run_id": path.rpartition("/")[2], **found}, found.get("code", 200))
        if path == "/recurringruns":
            # One to a page, so that paging is seen.
            start = int(query.get("page_token", ["0"])[0] or 0)
            more = {"next_page_token": str(start + 1)} if start + 1 < len(self.state.recurring) else {}
            return self.answer({"recurringRuns": self.state.recurring[start : start + 1], **more})
        return self.answer({"message": f"no {path}"}, 404)

    def do_POST(self):  # noqa: N802
        parts = urlsplit(self.path)
        path, query = parts.path.removeprefix("/apis/v2beta1"), parse_qs(parts.query)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.state.asked.append(("POST", path, self.headers.get("Authorization")))
        number = str(len(self.state.asked))
        if path == "/pipelines/upload":
            self.state.uploads.append(body)
            made = {"pipeline_id": "p" + number, "display_name": query["name"][0]}
            self.state.pipelines.append(made)
        elif path == "/pipelines/upload_version":
            self.state.uploads.append(body)
            made = {
                "pipeline_version_id": "v" + number,
                "pipeline_id": query["pipelineid"][0],
                "display_name": query["name"][0],
            }
            self.state.versions.append(made)
        elif path == "/experiments":
            made = {"experiment_id": "e" + number, **json.loads(body)}
            self.state.experiments.append(made)
        elif path == "/runs":
            made = {"run_id": "r" + number, **json.loads(body)}
            self.state.runs.append(made)
        elif path == "/recurringruns":
            made = {"recurring_run_id": "s" + number, **json.loads(body)}
            self.state.recurring.append(made)
        else:  # recurringruns/ID:disable
            made = {}
        self.answer(made)

    def do_DELETE(self):  # noqa: N802
        identifier = urlsplit(self.path).path.rpartition("/")[2]
        self.state.asked.append(("DELETE", identifier, None))
        self.state.recurring = [run for run in self.state.recurring if run["recurring_run_id"] != identifier]
        self.answer({})


@pytest.fixture
def kubeflow(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # the client keeps settings there
    state = SimpleNamespace(
        asked=[], uploads=[], experiments=[], pipelines=[], versions=[], runs=[], recurring=[], refuse=False, ends=[]
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Kubeflow,), {"state": state}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def workload(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(WORKLOAD)
    return path


def test_submitting_uploads_both_pipelines_and_starts_a_run(kubeflow, workload, capsys):
    sent = submit(kubeflow.url, workload, tracking="http://mlflow:5000", seed=7)
    assert [pipeline["display_name"] for pipeline in kubeflow.pipelines] == ["holdfast-retrain", "holdfast-rollout"]
    (run,) = kubeflow.runs
    assert sent["run"] == run["run_id"]
    assert run["experiment_id"] == kubeflow.experiments[0]["experiment_id"] == sent["experiment"]
    reference = {"pipeline_id": sent["pipeline"], "pipeline_version_id": sent["version"]}
    assert run["pipeline_version_reference"] == reference
    parameters = run["runtime_config"]["parameters"]
    assert (parameters["name"], parameters["seed"], parameters["tracking"]) == ("toy", 7, "http://mlflow:5000")
    assert json.loads(parameters["snapshot_config"])["data"]["source"] == "sklearn:digits"
    assert capsys.readouterr().out == ""


def test_what_is_uploaded_is_the_committed_pipeline(kubeflow, workload):
    submit(kubeflow.url, workload, tracking="http://mlflow:5000")
    committed = (Path(__file__).parents[2] / "manifests" / "pipelines" / "retrain.yaml").read_bytes()
    assert committed in kubeflow.uploads[1]


def test_the_parameters_are_those_of_the_pipeline(kubeflow, workload):
    from holdfast_pipelines.retrain import retrain

    submit(kubeflow.url, workload, tracking="http://mlflow:5000")
    given, known = set(kubeflow.runs[0]["runtime_config"]["parameters"]), retrain().component_spec.inputs
    assert {name for name, spec in known.items() if not spec.optional} <= given <= set(known)


def test_submitting_twice_makes_one_version(kubeflow, workload):
    first = submit(kubeflow.url, workload, tracking="http://mlflow:5000")
    second = submit(kubeflow.url, workload, tracking="http://mlflow:5000")
    assert first["version"] == second["version"]
    assert len(kubeflow.versions) == len(kubeflow.pipelines) == 2


def test_settings_reach_the_run(kubeflow, workload):
    settings = ClusterSettings(namespace="team-a", threads=4, checkpoint_volume="checkpoints")
    submit(kubeflow.url, workload, tracking="http://mlflow:5000", settings=settings)
    assert kubeflow.experiments[0]["namespace"] == "team-a"
    parameters = kubeflow.runs[0]["runtime_config"]["parameters"]
    assert (parameters["threads"], parameters["checkpoint"]) == (4, "/tmp/holdfast/checkpoints/toy")
    assert b"constant: checkpoints" in kubeflow.uploads[1]


def test_by_default_a_cluster_computes_with_one_thread_as_a_laptop(kubeflow, workload):
    submit(kubeflow.url, workload, tracking="http://mlflow:5000")
    assert kubeflow.runs[0]["runtime_config"]["parameters"]["threads"] == 1


def test_waiting_ends_with_the_run(kubeflow, workload, monkeypatch, capsys):
    monkeypatch.setattr("holdfast_pipelines.submit.POLL_SECONDS", 0.0)
    kubeflow.ends = [{"state": "PENDING"}, {"state": "RUNNING"}, {"state": "SUCCEEDED"}]
    assert submit(kubeflow.url, workload, tracking="http://mlflow:5000", wait=True)["state"] == "SUCCEEDED"
    seen = [line.rpartition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert seen == ["pending", "running", "succeeded"]


@pytest.mark.parametrize(
    ("tasks", "code", "found"),
    [
        (["gate", "refused"], 3, "the delivery or the model was refused"),
        (["train"], 1, "failed: train"),
        ([], 1, "no task is named"),
    ],
)
def test_waiting_ends_with_the_exit_code_of_a_run(kubeflow, workload, monkeypatch, tasks, code, found):
    monkeypatch.setattr("holdfast_pipelines.submit.POLL_SECONDS", 0.0)
    states = {"gate": "SUCCEEDED"}
    details = [{"display_name": name, "state": states.get(name, "FAILED")} for name in tasks]
    kubeflow.ends = [{"state": "FAILED", "run_details": {"task_details": details}}]
    where = ["--endpoint", kubeflow.url, "--workload", str(workload), "--tracking", "http://mlflow:5000", "--wait"]
    where += ["--registry", "registry.example/ml"]
    ended = CliRunner().invoke(app, ["submit", *where])
    assert ended.exception.exit_code == code
    assert found in str(ended.exception)


def test_waiting_outlasts_an_outage_and_not_a_refusal(kubeflow, workload, monkeypatch):
    monkeypatch.setattr("holdfast_pipelines.submit.POLL_SECONDS", 0.0)
    kubeflow.ends = [*({"code": 503} for _ in range(5)), {"state": "SUCCEEDED"}]
    assert submit(kubeflow.url, workload, tracking="http://mlflow:5000", wait=True)["state"] == "SUCCEEDED"
    kubeflow.ends = [{"code": 401, "message": "who are you?"}]
    with pytest.raises(RunError, match="refused: 401"):
        submit(kubeflow.url, workload, tracking="http://mlflow:5000", wait=True)


def test_certificates_that_are_none_are_one_line(kubeflow, workload, tmp_path):
    (tmp_path / "ca.pem").write_text("none")
    settings = ClusterSettings(ca_file=tmp_path / "ca.pem")
    with pytest.raises(WorkloadError, match=r"--ca-file .*ca\.pem: expected certificates in PEM form"):
        submit(kubeflow.url, workload, tracking="http://mlflow:5000", settings=settings)


def test_another_image_makes_another_version(kubeflow, workload):
    first = submit(kubeflow.url, workload, tracking="http://mlflow:5000")
    second = submit(kubeflow.url, workload, tracking="http://mlflow:5000", settings=ClusterSettings(tag="4f2c1d7"))
    assert (first["pipeline"], first["version"] == second["version"]) == (second["pipeline"], False)


def test_images_without_a_registry_are_refused_before_anything_is_sent(kubeflow, workload):
    where = ["--endpoint", kubeflow.url, "--workload", str(workload), "--tracking", "http://mlflow:5000"]
    for given in ([], ["--image", "model=own/model@sha256:0"]):
        ended = CliRunner().invoke(app, ["submit", *where, *given])
        assert ended.exception.exit_code == 2
        assert "--registry: expected HOST/PATH that the images are pulled from, found none" in str(ended.exception)
    assert kubeflow.uploads == []
    every = [f"--image={name}=registry.example/{name}@sha256:0" for name in ("data", "model", "serving")]
    assert CliRunner().invoke(app, ["submit", *where, *every]).exit_code == 0


def test_the_command_passes_every_option_on(kubeflow, workload):
    where = ["--endpoint", kubeflow.url, "--workload", str(workload), "--tracking", "http://mlflow:5000"]
    images = ["--registry", "registry.example/ml", "--tag", "4f2c1d7", "--experiment", "nightly"]
    found = CliRunner().invoke(app, ["submit", *where, *images, "--seed", "3", "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["run"] == kubeflow.runs[0]["run_id"]
    assert kubeflow.experiments[0]["display_name"] == "nightly"
    assert all(b"registry.example/ml/" in upload and b":4f2c1d7" in upload for upload in kubeflow.uploads)
    assert kubeflow.runs[0]["runtime_config"]["parameters"]["seed"] == 3


def test_a_schedule_makes_a_recurring_run_with_the_seconds_first(kubeflow, workload):
    sent = submit(kubeflow.url, workload, tracking="http://mlflow:5000", cron="0 3 * * *")
    (recurring,) = kubeflow.recurring
    assert recurring["display_name"] == "toy-retrain"
    assert recurring["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert (recurring["mode"], recurring["no_catchup"], recurring["max_concurrency"]) == ("ENABLE", True, 1)
    assert recurring["pipeline_version_reference"]["pipeline_version_id"] == sent["version"]
    assert kubeflow.runs == []


def test_a_new_schedule_replaces_the_old_one_after_it_stands(kubeflow, workload):
    old = submit(kubeflow.url, workload, tracking="http://mlflow:5000", cron="0 3 * * *")["recurring_run"]
    kubeflow.recurring.append({"recurring_run_id": "other", "display_name": "of-somebody-else"})
    new = submit(kubeflow.url, workload, tracking="http://mlflow:5000", cron="0 4 * * *")["recurring_run"]
    assert {run["recurring_run_id"] for run in kubeflow.recurring} == {"other", new}
    acts = [(verb, path) for verb, path, _ in kubeflow.asked if "recurringruns" in path or verb == "DELETE"]
    made = max(i for i, act in enumerate(acts) if act == ("POST", "/recurringruns"))
    assert acts[made + 1 :] == [("POST", f"/recurringruns/{old}:disable"), ("DELETE", old)]


def test_the_token_of_the_environment_is_sent(kubeflow, workload, monkeypatch):
    monkeypatch.setenv("KFP_TOKEN", "secret")
    submit(kubeflow.url, workload, tracking="http://mlflow:5000")
    after_first = [token for _, path, token in kubeflow.asked if path != "/healthz"]
    assert set(after_first) == {"Bearer secret"}


def test_an_endpoint_that_nobody_serves_is_one_line(workload):
    with pytest.raises(
        RunError, match=r"^http://127\.0\.0\.1:9: expected the Kubeflow Pipelines API, found nothing .*$"
    ):
        submit("http://127.0.0.1:9", workload, tracking="http://mlflow:5000")


def test_a_refusal_is_one_line_with_what_the_api_said(kubeflow, workload):
    kubeflow.refuse = True
    with pytest.raises(RunError, match=r"refused: 401 who are you\?$"):
        submit(kubeflow.url, workload, tracking="http://mlflow:5000")


@pytest.mark.parametrize("endpoint", ["kubeflow", "file:///etc/passwd", "ftp://x"])
def test_an_endpoint_that_is_no_http_url_is_refused(workload, endpoint):
    with pytest.raises(WorkloadError, match="expected an http or https URL"):
        submit(endpoint, workload, tracking="http://mlflow:5000")


@pytest.mark.parametrize("data", ["digits.npz", "../x.csv"])
def test_a_path_that_no_pod_has_is_refused(workload, data):
    with pytest.raises(WorkloadError, match=rf"data\.source: .* found '{re.escape(data)}'"):
        submit("http://127.0.0.1:9", workload, tracking="http://mlflow:5000", data=data)


@pytest.mark.parametrize(("cron", "six"), [("0 3 * * *", "0 0 3 * * *"), ("30 0 3 * * 1", "30 0 3 * * 1")])
def test_schedules_get_their_seconds(cron, six):
    assert six_fields(cron) == six


@pytest.mark.parametrize("cron", ["", "daily", "0 3 * *", "0 0 3 * * * 2030"])
def test_a_schedule_of_another_length_is_refused(cron):
    with pytest.raises(WorkloadError, match=r"expected 5 fields \(or 6 with the seconds first\)"):
        six_fields(cron)
