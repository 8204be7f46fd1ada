"""Alarms of a monitor as an Alertmanager takes them: `POST /api/v2/alerts`, with an end that the next run moves on.

An alert that is not sent again ends by itself after three times the schedule; one that is over is sent with its end.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast.artifacts.documents import MonitorReport
from holdfast_pipelines.notify import bounded, deliver, url_of

ALERTMANAGER, ALERTMANAGER_TOKEN = "HOLDFAST_ALERTMANAGER_URL", "HOLDFAST_ALERTMANAGER_TOKEN"
"""Variables of a pod: the address, and the bearer token of a proxy in front of it."""
RUNBOOK = "https://github.com/holdfast-ml/holdfast/blob/main/docs/runbooks/monitor.md"
LASTS = 3
"""Of the schedule: so long an alert goes on without being sent again."""
_NAMES = {"labels": ("HoldfastModelWorseThanApproved", "critical")}
_INPUTS = ("HoldfastInputsChanged", "warning")


def alerts(report: MonitorReport, now: datetime, every: timedelta, link: str = "") -> list[dict[str, Any]]:
    """One alert for each stage that judges: on until three times `every` from now, or ending now without an alarm.

    Names, labels and runbooks are those of the rules in manifests/components/monitoring.
    """
    return [_alert(report, stage.stage, stage.alarm, now, every, link) for stage in report.stages]


def send(report: MonitorReport, environment: Mapping[str, str], now: datetime, every: timedelta, link: str) -> bool:
    """Sends the alerts of a report to the Alertmanager that the environment names; whether it took them.

    Raises:
        WorkloadError: no http or https URL there.
    """
    found = alerts(report, now, every, link)
    if not found:
        return True
    url = url_of(f"env:{ALERTMANAGER}").rstrip("/")
    token = environment.get(ALERTMANAGER_TOKEN, "").strip()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return deliver(f"{url}/api/v2/alerts", json.dumps(found).encode(), headers)


def _alert(
    report: MonitorReport, stage: str, alarm: bool, now: datetime, every: timedelta, link: str
) -> dict[str, Any]:
    name, severity = _NAMES.get(stage, _INPUTS)
    return {
        "labels": {"alertname": name, "model": report.name, "stage": stage, "severity": severity},
        "annotations": {
            "summary": str(bounded(f"{report.name}: {report.reason}")),
            "description": str(bounded(report.advice)),
            "runbook_url": f"{RUNBOOK}#{name.lower()}",
        },
        "endsAt": _rfc3339(now + LASTS * every if alarm else now),
        **({"generatorURL": link} if link else {}),
    }


def _rfc3339(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
