"""The controller's metrics, read by Prometheus's own parser."""

import socket
import time
import urllib.error
import urllib.request

import pytest
from prometheus_client import parser

from holdfast.errors import RolloutError
from holdfast.serving.rollout.engine.analysis import ALPHA_SHARES
from holdfast.serving.rollout.reporting import metrics


def families(text):
    return {family.name: family for family in parser.text_string_to_metric_families(text)}


def value(text, name, **labels):
    (found,) = [
        sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"holdfast_rollout_{name}" and labels.items() <= sample.labels.items()
    ]
    return found


@pytest.fixture
def text(in_canary):
    in_canary.blind("no answer")
    in_canary.metrics.keeps("retry", {"attempt": 1, "reason": "no answer"})
    in_canary.everybody.paged(in_canary.rollout, "help")
    return (in_canary.state / metrics.FILE).read_text()


def test_the_file_says_where_the_rollout_stands(text, in_canary):
    total = in_canary.rollout.total
    assert (value(text, "state", state="Canary"), value(text, "state", state="Shadow")) == (1, 0)
    assert value(text, "weight") == 20
    assert value(text, "candidate_requests_total") == total.candidate.answered
    assert value(text, "candidate_failures_total") == total.candidate.failed == 1
    assert (value(text, "looks_total"), value(text, "blind_looks_total")) == (4, 1)
    assert (value(text, "retries_total"), value(text, "paged")) == (1, 1)
    assert value(text, "e_value", test="errors") == pytest.approx(in_canary.rollout.tests.values()["errors"], abs=1e-4)
    needed = 1 / (0.05 * ALPHA_SHARES["errors"])  # by definition, at alpha 0.05
    assert value(text, "e_value_needed", test="errors") == pytest.approx(needed, rel=1e-5)
    assert (value(text, "client_requests_total"), value(text, "client_failures_total")) == (1234, 2)


def test_every_sample_says_which_rollout_and_every_metric_its_kind(text):
    for family in families(text).values():
        assert family.type in ("gauge", "counter", "histogram")
        assert family.documentation
        assert all(sample.labels.items() >= {"name": "tiny", "version": "2"}.items() for sample in family.samples)


def test_names_kinds_and_labels_are_those_that_dashboards_and_alerts_know(text):
    # As they were before prometheus_client wrote them; the runbook's alerts and people's dashboards name them.
    found = {line.split(" ")[2]: line.split(" ")[3] for line in text.splitlines() if line.startswith("# TYPE")}
    totals = ("looks", "blind_looks", "retries", "transitions", "client_requests", "client_failures")
    arms = ("candidate_requests", "candidate_failures", "champion_requests", "champion_failures")
    gauges = ("state", "cause", "weight", "e_value", "e_value_needed", "failure_bound", "blind_seconds", "paged")
    assert found == {
        **{f"holdfast_rollout_{name}_total": "counter" for name in (*totals, *arms)},
        **{f"holdfast_rollout_{name}": "gauge" for name in (*gauges, "written_timestamp_seconds")},
        "holdfast_rollout_decision_seconds": "histogram",
    }
    edges = [
        sample.labels["le"]
        for sample in families(text)["holdfast_rollout_decision_seconds"].samples
        if "le" in sample.labels
    ]
    assert edges == ["0.05", "0.1", "0.25", "0.5", "1", "2", "5", "10", "30", "+Inf"]


def test_decisions_are_timed_until_they_are_in_effect(told):
    told.metrics.keeps("intent", {})
    time.sleep(0.06)
    told.start()
    text = told.metrics.text
    assert value(text, "decision_seconds_count") == 1
    assert 0.06 <= value(text, "decision_seconds_sum") < 5
    assert value(text, "decision_seconds_bucket", le="0.05") == 0
    assert value(text, "decision_seconds_bucket", le="+Inf") == 1


@pytest.mark.parametrize("label", ['a"b', "a\\b", "a\nb", "ü"])
def test_labels_come_back_as_they_were(label):
    text = metrics.exposition([metrics.Families({}).gauges("x", "x", "reason", {label: 1.5})])
    assert value(text, "x") == 1.5
    (found,) = families(text).values()
    assert found.samples[0].labels == {"reason": label}


@pytest.mark.parametrize("number", [0.0, 1e300, 2**53, float("inf"), 1e-9])
def test_numbers_come_back_as_they_were(number):
    assert value(metrics.exposition([metrics.Families({}).gauge("x", "x", number)]), "x") == number


def test_they_are_served_on_loopback_only_while_the_rollout_runs(in_canary):
    port = free_port()
    with metrics.served(in_canary.metrics, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:  # noqa: S310
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert value(answer.read().decode(), "weight") == 20
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)  # noqa: S310
        with pytest.raises(RolloutError, match="expected a free port"), metrics.served(in_canary.metrics, port):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)  # noqa: S310


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])
