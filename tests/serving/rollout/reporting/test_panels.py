"""Alarms and dashboards name only metrics that the controller really writes."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from holdfast.serving.rollout.reporting import metrics

MONITORING = Path(__file__).parents[4] / "manifests" / "components" / "monitoring"


def test_every_metric_of_a_rollout_in_a_rule_or_panel_is_written(in_canary):
    in_canary.everybody.paged(in_canary.rollout, "help")
    text = (in_canary.state / metrics.FILE).read_text()
    known = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    files = [MONITORING / "models.yaml", *(MONITORING / "dashboards").glob("*.json")]
    named = {name for file in files for name in re.findall(r"holdfast_rollout_[a-z_]+", file.read_text())}
    assert len(named) >= 7
    assert named <= known
