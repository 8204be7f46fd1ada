"""Metrics of the controller itself, in Prometheus's text format 0.0.4: a file always, a page on loopback on request.

https://prometheus.io/docs/instrumenting/exposition_formats/. Written here rather than by prometheus_client, which the
serving environment only happens to have.
"""

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.errors import RolloutError
from holdfast.serving.predictor.settings import LOOPBACK
from holdfast.serving.rollout.judge.analysis import bound
from holdfast.serving.rollout.judge.cause import Cause
from holdfast.serving.rollout.judge.counters import Blind, Snapshot
from holdfast.serving.rollout.judge.machine import Rollout, State, desired
from holdfast.serving.rollout.tell.status import Measure, measures
from holdfast.serving.rollout.tell.timeline import Sent

FILE = "metrics.prom"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EVERY_SECONDS = 1.0
"""Between two writes of the file; a transition or a page is written at once."""
DECISION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds; 2 is the target for a rollback."""
Labels = Mapping[str, str]
Point = tuple[Labels, float]


@dataclass(frozen=True)
class Family:
    """All samples of one metric; a sample's name is the metric's, with a suffix where the format wants one."""

    name: str
    kind: str
    help: str
    points: Sequence[Point]
    suffixes: Sequence[str] = ()
    """One per point; left out: none has one."""


@dataclass
class Metrics:
    """Keeps `metrics.prom`; implements `holdfast.serving.rollout.tell.announce.Listener`."""

    file: Path
    traffic: Sent
    labels: Labels
    """Of every sample: which rollout it is about."""
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

    def looked(self, rollout: Rollout, seen: Snapshot | Blind) -> None:
        """Every look."""
        self._rollout = rollout
        self._looks += 1
        self._blind += isinstance(seen, Blind)
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
        self.text = exposition([*of_rollout(self._rollout), *self._of_controller()], self.labels)
        beside = self.file.with_name(f".{self.file.name}.new")
        with contextlib.suppress(OSError):  # a full disk must not end a rollout
            beside.write_text(self.text)
            beside.replace(self.file)

    def _of_controller(self) -> list[Family]:
        return [
            Family("looks_total", "counter", "Looks at the counters.", [({}, self._looks)]),
            Family("blind_looks_total", "counter", "Of them, those that saw nothing.", [({}, self._blind)]),
            Family("retries_total", "counter", "Acts that had to be tried again.", [({}, self._retries)]),
            Family("transitions_total", "counter", "Transitions in effect.", [({}, self._transitions)]),
            Family("paged", "gauge", "1 when a person was asked for.", [({}, self._paged)]),
            Family("client_requests_total", "counter", "Replayed requests that ended.", [({}, self.traffic.sent)]),
            Family("client_failures_total", "counter", "Of them, without a whole answer.", [({}, self.traffic.failed)]),
            Family("written_timestamp_seconds", "gauge", "When this was written, Unix.", [({}, time.time())]),
            histogram("decision_seconds", "From a decision until it is in effect.", self._took),
        ]


def of_rollout(rollout: Rollout) -> list[Family]:
    """What the state machine knows."""
    candidate, champion = rollout.total.candidate, rollout.total.champion
    tests: tuple[Measure, ...] = measures(rollout)
    why = rollout.judgement.cause
    return [
        Family("state", "gauge", "1 for the state it is in.", [({"state": s}, s is rollout.state) for s in State]),
        Family("cause", "gauge", "1 for the cause of its end.", [({"cause": c}, c is why) for c in Cause]),
        Family("weight", "gauge", "Percent of live traffic on the candidate.", [({}, desired(rollout).weight)]),
        Family("candidate_requests_total", "counter", "Answers of the candidate.", [({}, candidate.answered)]),
        Family("candidate_failures_total", "counter", "Of them, failed.", [({}, candidate.failed)]),
        Family("champion_requests_total", "counter", "Answers of the champion.", [({}, champion.answered)]),
        Family("champion_failures_total", "counter", "Of them, failed.", [({}, champion.failed)]),
        Family("e_value", "gauge", "Evidence against the candidate.", [({"test": t.name}, t.value) for t in tests]),
        Family("e_value_needed", "gauge", "E-value that ends it.", [({"test": t.name}, t.needed) for t in tests]),
        Family("failure_bound", "gauge", "Upper bound of the excess failures.", [({}, bound(rollout.total))]),
        Family("blind_seconds", "gauge", "Time without counters.", [({}, rollout.blind)]),
    ]


def histogram(name: str, about: str, values: Sequence[float]) -> Family:
    """Cumulative buckets, sum and count."""
    edges = [*DECISION_BUCKETS, float("inf")]
    points: list[Point] = [({"le": _number(edge)}, sum(value <= edge for value in values)) for edge in edges]
    points += [({}, sum(values)), ({}, len(values))]
    return Family(name, "histogram", about, points, [*("_bucket" for _ in edges), "_sum", "_count"])


def exposition(families: Sequence[Family], labels: Labels) -> str:
    """The text format; every sample gets `labels` too."""
    return "".join(line + "\n" for family in families for line in _lines(family, labels))


def _lines(family: Family, labels: Labels) -> Iterator[str]:
    name = f"holdfast_rollout_{family.name}"
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {family.kind}"
    for (own, value), suffix in zip(family.points, family.suffixes or [""] * len(family.points), strict=True):
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in {**labels, **own}.items())
        yield f"{name}{suffix}{{{pairs}}} {_number(float(value))}"


def _escaped(text: str) -> str:
    return str(text).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


@contextlib.contextmanager
def served(metrics: Metrics, port: int | None) -> Iterator[None]:
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
            data = metrics.text.encode()
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(data) if self.path == "/metrics" else 0))
            self.end_headers()
            if self.path == "/metrics":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

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
