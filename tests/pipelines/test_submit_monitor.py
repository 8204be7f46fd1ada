"""The recurring run of the pipeline `monitor`, against the stand-in of the API."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from holdfast.cli import app
from holdfast.errors import WorkloadError
from holdfast_pipelines.cluster import Alerting, ClusterSettings, Notifying
from holdfast_pipelines.compiled import compile_pipelines
from holdfast_pipelines.submit_monitor import submit_monitor
from tests.pipelines.test_submit import WORKLOAD, kubeflow  # noqa: F401

SECTION = "monitor: {log: /logs/loans, kept: /logs/kept, every: 2h}\n"
VOLUMES = ({"claim": "logs", "path": "/logs", "steps": ("monitor", "request")},)


@pytest.fixture
def workload(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(WORKLOAD + SECTION)
    return path


def submitted(server, workload, **given):
    settings = ClusterSettings(volumes=VOLUMES)
    return submit_monitor(server.url, workload, tracking="http://mlflow:5000", settings=settings, **given)


def test_the_schedule_is_the_sections_and_the_run_is_made_in_place_of_the_one_before(kubeflow, workload):  # noqa: F811
    submitted(kubeflow, workload)
    made = submitted(kubeflow, workload, every="1h")
    (run,) = kubeflow.recurring
    assert made["recurring_run"] == run["recurring_run_id"]
    assert run["display_name"] == "toy-monitor"
    assert run["trigger"]["periodic_schedule"]["interval_second"] == 3600
    parameters = run["runtime_config"]["parameters"]
    assert (parameters["name"], parameters["every"]) == ("toy", "1h")
    assert json.loads(parameters["config"])["log"] == "/logs/loans"
    assert [pipeline["display_name"] for pipeline in kubeflow.pipelines] == ["holdfast-monitor"]


def test_a_log_on_no_volume_of_the_step_is_refused(kubeflow, workload):  # noqa: F811
    with pytest.raises(WorkloadError, match="monitor.log: expected the absolute path of a folder on a volume"):
        submit_monitor(kubeflow.url, workload, tracking="http://mlflow:5000")


def test_a_workload_without_a_log_is_refused(kubeflow, tmp_path):  # noqa: F811
    path = tmp_path / "bare.yaml"
    path.write_text(WORKLOAD)
    with pytest.raises(WorkloadError, match="monitor.log: expected the folder of a sample_log on a volume, found none"):
        submitted(kubeflow, path)


def test_a_schedule_of_retrain_is_a_cron(workload):
    words = ["submit", "--endpoint", "http://x", "--tracking", "t", "--every", "1h", str(workload)]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 2


def spec(folder, settings):
    compile_pipelines(folder, settings)
    return next(yaml.safe_load_all((folder / "monitor.yaml").read_text()))


def ends(spec):
    """The components of the pipeline, without those that judge."""
    boxes = spec["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-") for name in boxes} - {"monitor", "request", "start-retrain"}


def test_an_alarm_ends_the_run_and_is_told_as_the_settings_have_it(tmp_path):
    told = ClusterSettings(
        when_alarmed="succeed",
        notify=Notifying(secret="hook"),
        alerts=Alerting(alertmanager="http://alertmanager:9093", secret="am"),
    )
    assert ends(spec(tmp_path / "a", told)) == {"alert", "notify-failure", "notify-refusal"}
    assert ends(spec(tmp_path / "b", ClusterSettings())) == {"refused"}


def test_the_token_of_alertmanager_comes_from_a_secret(tmp_path):
    settings = ClusterSettings(alerts=Alerting(alertmanager="http://alertmanager:9093", secret="am"))
    spec(tmp_path, settings)
    platform = list(yaml.safe_load_all((tmp_path / "monitor.yaml").read_text()))[1]
    found = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-alert"]
    assert found["secretAsEnv"][0]["keyToEnv"] == [{"envVar": "HOLDFAST_ALERTMANAGER_TOKEN", "secretKey": "token"}]


def test_a_monitor_that_retrains_gets_what_it_starts(kubeflow, tmp_path):  # noqa: F811
    path = tmp_path / "toy.yaml"
    section = SECTION.replace("every: 2h", "on_drift: [report, retrain]")
    path.write_text(WORKLOAD + section)
    with pytest.raises(WorkloadError, match="monitor.on_drift: expected data.review with retrain"):
        submitted(kubeflow, path)
    path.write_text(WORKLOAD.replace("'sklearn:digits'}", "'sklearn:digits', review: /data/reviews}") + section)
    settings = ClusterSettings(volumes=(*VOLUMES, {"claim": "data", "path": "/data"}), kubeflow="http://kfp:8888")
    submit_monitor(kubeflow.url, path, tracking="http://mlflow:5000", settings=settings)
    how = json.loads(kubeflow.recurring[0]["runtime_config"]["parameters"]["start"])
    assert how["endpoint"] == "http://kfp:8888"
    assert how["parameters"]["name"] == "toy"
    retrain = next(one for one in kubeflow.pipelines if one["display_name"] == "holdfast-retrain")
    assert how["pipeline"] == retrain["pipeline_id"]
