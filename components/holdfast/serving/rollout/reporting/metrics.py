"""Metrics of the controller itself, in Prometheus's text format 0.0.4: a file always, a page on loopback on request.

https://prometheus.io/docs/instrumenting/exposition_formats/, written by prometheus_client. The page is our own and
shows the text that was written last: that library's server sets connections no limit of time, and would read a rollout
while it moves.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.folder import replace_file
from holdfast.errors import RolloutError
from holdfast.serving.predictor.settings import LOOPBACK
from holdfast.serving.rollout.contract.counters import NoData, Observation
from holdfast.serving.rollout.engine.analysis import bound
from holdfast.serving.rollout.engine.machine import Rollout, State, desired
from holdfast.serving.rollout.reporting.status import Measure, measures
from holdfast.serving.rollout.reporting.timeline import Sent

FILE = "metrics.prom"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EVERY_SECONDS = 1.0
"""Between two writes of the file; a transition or a page is written at once."""
DECISION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds; 2 is the target for a rollback."""
PREFIX = "holdfast_rollout_"


@dataclass(frozen=True)
class Families:
    """Makes the metrics of one rollout."""

    labels: Mapping[str, str]
    """Labels of every sample: which rollout it is about."""

    def counter(self, name: str, about: str, value: float) -> Metric:
        """One number that only grows; its name ends in `_total`."""
        made = CounterMetricFamily(PREFIX + name, about, labels=list(self.labels))
        made.add_metric(list(self.labels.values()), value)
        return made

    def gauge(self, name: str, about: str, value: float) -> Metric:
        """One number."""
        made = GaugeMetricFamily(PREFIX + name, about, labels=list(self.labels))
        made.add_metric(list(self.labels.values()), value)
        return made

    def gauges(self, name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
        """One number for each value of a label."""
        made = GaugeMetricFamily(PREFIX + name, about, labels=[*self.labels, label])
        for key, value in values.items():
            made.add_metric([*self.labels.values(), key], value)
        return made

    def histogram(self, name: str, about: str, values: Sequence[float]) -> Metric:
        """Cumulative buckets, sum and count."""
        buckets = [
            ("+Inf" if edge == float("inf") else f"{edge:g}", float(sum(value <= edge for value in values)))
            for edge in (*DECISION_BUCKETS, float("inf"))
        ]
        made = HistogramMetricFamily(PREFIX + name, about, labels=list(self.labels))
        made.add_metric(list(self.labels.values()), buckets, sum(values))
        return made


@dataclass
class MetricsFile:
    """Keeps `metrics.prom`; implements `holdfast.serving.rollout.reporting.announce.Listener`."""

    file: Path
    traffic: Sent
    labels: Mapping[str, str]
    """Labels of every sample: which rollout it is about."""
    text: str = ""
    """What the page shows."""
    _rollout: Rollout | None = field(default=None, init=False)
    _looks: int = field(default=0, init=False)
    _blind: int = field(default=0, init=False)
    _retries: int = field(default=0, init=False)
    _paged: bool = field(default=False, init=False)
    _transitions: int = field(default=0, init=False)
    _took: list[float] = field(default_factory=list, init=False)
    """Seconds from each decision until it was in effect."""
    _decided: float | None = field(default=None, init=False)
    _written: float = field(default=float("-inf"), init=False)

    def observed(self, rollout: Rollout, seen: Observation) -> None:
        """Every look."""
        self._rollout = rollout
        self._looks += 1
        self._blind += isinstance(seen, NoData)
        self._write(now=False)

    def moved(self, before: Rollout, after: Rollout) -> None:
        """A decision that is in effect."""
        self._rollout = after
        self._transitions += 1
        if self._decided is not None:
            self._took.append(time.monotonic() - self._decided)
            self._decided = None
        self._write(now=True)

    def paged(self, rollout: Rollout, reason: str) -> None:
        """A person is needed."""
        self._rollout, self._paged = rollout, True
        self._write(now=True)

    def keeps(self, kind: str, facts: Mapping[str, object]) -> None:
        """A decision, which is announced before it is carried out, and every attempt after the first."""
        if kind == "intent" and self._decided is None:
            self._decided = time.monotonic()
        self._retries += kind == "retry"

    def _write(self, *, now: bool) -> None:
        moment = time.monotonic()
        if self._rollout is None or (not now and moment - self._written < EVERY_SECONDS * 0.9):
            return
        self._written = moment
        made = Families(self.labels)
        self.text = exposition([*of_rollout(self._rollout, made), *self._of_controller(made)])
        with contextlib.suppress(OSError):  # a full disk must not end a rollout
            replace_file(self.file, self.text.encode(), sync=False)

    def _of_controller(self, made: Families) -> list[Metric]:
        return [
            made.counter("looks_total", "Looks at the counters.", self._looks),
            made.counter("blind_looks_total", "Of them, those that saw nothing.", self._blind),
            made.counter("retries_total", "Acts that had to be tried again.", self._retries),
            made.counter("transitions_total", "Transitions in effect.", self._transitions),
            made.gauge("paged", "1 when a person was asked for.", self._paged),
            made.counter("client_requests_total", "Replayed requests that ended.", self.traffic.sent),
            made.counter("client_failures_total", "Of them, without a whole answer.", self.traffic.failed),
            made.gauge("written_timestamp_seconds", "When this was written, Unix.", time.time()),
            made.histogram("decision_seconds", "From a decision until it is in effect.", self._took),
        ]


def of_rollout(rollout: Rollout, made: Families) -> list[Metric]:
    """What the state machine knows."""
    candidate, champion = rollout.total.candidate, rollout.total.champion
    tests: tuple[Measure, ...] = measures(rollout)
    why = rollout.judgement.cause
    return [
        made.gauges("state", "1 for the state it is in.", "state", {state: state is rollout.state for state in State}),
        made.gauges("cause", "1 for the cause of its end.", "cause", {cause: cause is why for cause in Cause}),
        made.gauge("weight", "Percent of live traffic on the candidate.", desired(rollout).weight),
        made.counter("candidate_requests_total", "Answers of the candidate.", candidate.answered),
        made.counter("candidate_failures_total", "Of them, failed.", candidate.failed),
        made.counter("champion_requests_total", "Answers of the champion.", champion.answered),
        made.counter("champion_failures_total", "Of them, failed.", champion.failed),
        made.gauges("e_value", "Evidence against the candidate.", "test", {test.name: test.value for test in tests}),
        made.gauges("e_value_needed", "E-value that ends it.", "test", {test.name: test.needed for test in tests}),
        made.gauge("failure_bound", "Upper bound of the excess failures.", bound(rollout.total)),
        made.gauge("blind_seconds", "Time without counters.", rollout.blind),
    ]


@dataclass(frozen=True)
class _Given(Collector):
    """These families, as prometheus_client asks for them."""

    families: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


def exposition(families: Iterable[Metric]) -> str:
    """The text format."""
    return generate_latest(_Given(families)).decode()


@contextlib.contextmanager
def served(metrics: MetricsFile, port: int | None) -> Iterator[None]:
    """The page at http://127.0.0.1:PORT/metrics until the end of the block; without a port there is none.

    Raises:
        RolloutError: the port is taken.
    """
    if port is None:
        yield
        return
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Page(BaseHTTPRequestHandler):
        """Answers GET /metrics."""

        timeout = 5.0

        def do_GET(self) -> None:
            """The last text."""
            known = self.path == "/metrics"
            data = metrics.text.encode() if known else b""
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

    try:
        server = ThreadingHTTPServer((LOOPBACK, port), Page)
    except OSError as error:
        raise RolloutError(f"--metrics-port {port}: expected a free port, found: {error.strerror}") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
