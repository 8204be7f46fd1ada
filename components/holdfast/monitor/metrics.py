"""What a report holds, in Prometheus's text format: for a textfile collector or a push gateway."""

from calendar import timegm
from time import strptime

from holdfast.artifacts.documents import MonitorReport


def exposition(report: MonitorReport, name: str) -> str:
    """The gauges of the model `name`, version 0.0.4 of the format."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(metric: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"holdfast_monitor_{metric}", about, ("model", *labels), registry=registry)

    evidence, limit = (
        gauge("evidence", "Of a change, in this period.", "stage"),
        gauge("limit", "For an alarm.", "stage"),
    )
    alarm, distance = gauge("alarm", "1: alarm.", "stage"), gauge("column_distance", "Over the median.", "column")
    for stage in report.stages:
        evidence.labels(name, stage.stage).set(stage.evidence)
        limit.labels(name, stage.stage).set(stage.limit)
        alarm.labels(name, stage.stage).set(stage.alarm)
    for column in report.columns:
        distance.labels(name, column.column).set(column.distance)
    last = timegm(strptime(report.last, "%Y-%m-%dT%H:%M:%SZ"))
    gauge("windows", "Hours that were compared.").labels(name).set(report.windows)
    gauge("last_window_timestamp_seconds", "Start of the last hour, Unix.").labels(name).set(last)
    return generate_latest(registry).decode()
