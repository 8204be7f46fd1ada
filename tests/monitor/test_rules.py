"""Alarms and dashboards: they fire when they should, and name only metrics that a page really has."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from holdfast.artifacts.documents import MonitoredColumn, MonitoredStage, MonitorReport, Verdict
from holdfast.monitor.metrics import exposition
from holdfast.serving.predictor import guarding

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "manifests" / "components" / "monitoring"
RULES = yaml.safe_load((MONITORING / "models.yaml").read_text())["spec"]
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
CASES = yaml.safe_load((Path(__file__).parent / "rules.test.yaml").read_text())["tests"]
BOARDS = sorted((MONITORING / "dashboards").glob("*.json"))


def queries():
    panels = [panel for board in BOARDS for panel in json.loads(board.read_text())["panels"]]
    return [rule["expr"] for rule in ALERTS] + [target["expr"] for panel in panels for target in panel["targets"]]


def report():
    stages = tuple(
        MonitoredStage(stage=stage, evidence=3.5, limit=200, seen=1, alarm=stage == "labels", reason="")
        for stage in ("inputs", "model", "labels")
    )
    column = MonitoredColumn(column="x.age", distance=2.5, usual=3, moved=0.1, unknown=0)
    return MonitorReport(
        name="loans", model="a" * 64, first="2026-01-01T00:00:00Z",
        last="2026-01-01T01:00:00Z", windows=2, stages=stages,
        columns=(column,), change="none", began=None, loss=None, selected=False, next="retrain", advice="", reason="",
        verdict=Verdict.FAIL,
    )  # fmt: skip


def samples(text):
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def test_the_reports_metrics_can_be_scraped():
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(exposition(report(), "loans"))
        for sample in family.samples
    }
    assert found[("holdfast_monitor_alarm", "labels", "loans")] == 1
    assert found[("holdfast_monitor_evidence", "inputs", "loans")] == 3.5
    assert found[("holdfast_monitor_last_window_timestamp_seconds", "loans")] == 1767229200  # date -d ... +%s
    assert found[("holdfast_monitor_column_distance", "loans", "x.age")] == 2.5


def test_every_metric_of_the_monitor_and_the_guard_is_on_a_page():
    guarding.metrics()["flagged"].labels("far", "flag")
    known = samples(exposition(report(), "loans")) | samples(generate_latest(REGISTRY).decode())
    named = {name for query in queries() for name in re.findall(r"holdfast_(?:monitor|guard)_\w+", query)}
    assert len(named) >= 8
    assert named <= known


def every_alarm():
    """Those of each PrometheusRule among the manifests."""
    texts = [path.read_text() for path in sorted((ROOT / "manifests").rglob("*.yaml"))]
    found = [one for text in texts if "kind: PrometheusRule" in text for one in yaml.safe_load_all(text)]
    groups = [group for one in found if one["kind"] == "PrometheusRule" for group in one["spec"]["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_the_alarms_of_every_manifest_are_found():
    assert {"HoldfastWatchdogSilent", "HoldfastInputsChanged"} < {rule["alert"] for rule in every_alarm()}


@pytest.mark.parametrize("rule", every_alarm(), ids=lambda rule: rule["alert"])
def test_an_alarm_has_a_severity_and_a_section_in_the_runbook(rule):
    page, _, anchor = rule["annotations"]["runbook_url"].rpartition("/docs/")[2].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert anchor in [heading.lower() for heading in headings]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alarm_has_a_case_that_fires_and_one_that_does_not(rule):
    expected = [
        one["exp_alerts"] for case in CASES for one in case["alert_rule_test"] if one["alertname"] == rule["alert"]
    ]
    assert sorted(map(len, expected)) == [0, 1]


def promtool(folder, *words):
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("needs promtool (Debian's package prometheus)")
    (folder / "rules.yaml").write_text(yaml.safe_dump(RULES))
    return subprocess.run([tool, *words], cwd=folder, capture_output=True, text=True, check=False)


def test_prometheus_agrees_with_every_case(tmp_path):
    shutil.copy(Path(__file__).parent / "rules.test.yaml", tmp_path)
    done = promtool(tmp_path, "test", "rules", "rules.test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_never_fires_is_noticed(tmp_path):
    text = (Path(__file__).parent / "rules.test.yaml").read_text()
    (tmp_path / "rules.test.yaml").write_text(text.replace("'0 1x5'", "'0 0x5'"))
    assert promtool(tmp_path, "test", "rules", "rules.test.yaml").returncode == 1


def test_prometheus_can_read_every_query(tmp_path):
    (tmp_path / "queries.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "q", "rules": [
            {"record": f"panel:{i}", "expr": query} for i, query in enumerate(queries())
        ]}]})
    )  # fmt: skip
    done = promtool(tmp_path, "check", "rules", "queries.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboards_have_their_own_names_and_lead_to_the_runbook():
    boards = [json.loads(board.read_text()) for board in BOARDS]
    assert len({board["uid"] for board in boards}) == len(boards) == 2
    assert all("runbooks/monitor.md" in board["links"][0]["url"] for board in boards)
