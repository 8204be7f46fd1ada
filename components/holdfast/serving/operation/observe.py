"""What is seen of a model in operation: its counters, adversarial rows that are sent to it, what its guard counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from holdfast.errors import ClusterError, RolloutError
from holdfast.http_client import HttpClient, HttpError
from holdfast.prometheus import PrometheusClient
from holdfast.serving.protocol import body, read_reply
from holdfast.serving.rollout.cluster.prometheus import Prometheus
from holdfast.serving.rollout.cluster.series import MetricsSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALARMED = "holdfast_guard_clients_alarmed"
PROBES = 8
"""Adversarial rows of one look."""

Pairs = Mapping[str, tuple[int, int]]
"""Signal -> (failures, answers)."""


@dataclass(frozen=True)
class ServedCounts:
    """Counters of the served model, from the start of its counting."""

    answered: int
    failed: int
    timed: int
    slow: int

    def since(self, before: "ServedCounts | None") -> Pairs:
        """What was added; nothing after a counter went back, as it does when a server starts again."""
        values = (self.answered, self.failed, self.timed, self.slow)
        earlier = values if before is None else (before.answered, before.failed, before.timed, before.slow)
        answered, failed, timed, slow = (now - then for now, then in zip(values, earlier, strict=True))
        if min(answered, failed, timed, slow) < 0 or failed > answered or slow > timed:
            return {}
        return {"errors": (failed, answered), "latency": (slow, timed)}


class Counters(Protocol):
    """Where the counters come from."""

    def read(self) -> ServedCounts:
        """As of now.

        Raises:
            RolloutError: there are none, or they are stale.
        """


class FromPrometheus:
    """The series of the arm `champion` of a target file."""

    def __init__(self, metrics: MetricsSource, slow_ms: float) -> None:
        # What serves is the only arm: it is read in the place of both.
        self._source = Prometheus(metrics.model_copy(update={"candidate": metrics.champion}))
        self._slow_ms = slow_ms

    def read(self) -> ServedCounts:
        """As of the newest scrape.

        Raises:
            RolloutError: as `Prometheus.read`, or no bucket ends at or above `slow_ms`.
        """
        reading = self._source.read()
        arm, edges = reading.champion, reading.edges_ms
        if not edges:
            return ServedCounts(arm.answered, arm.failed, 0, 0)
        above = [i for i, edge in enumerate(edges) if edge >= self._slow_ms]
        if not above:
            raise RolloutError(f"expected a latency bucket of at least {self._slow_ms:g} ms, found up to {edges[-1]:g}")
        return ServedCounts(arm.answered, arm.failed, arm.timed, arm.over(above[0]))


def alarmed_clients(metrics: MetricsSource, now: float) -> int:
    """Clients whom the guard of the served model has an alarm about; 0 where it has no guard.

    Raises:
        ClusterError: Prometheus does not answer, or the samples are stale.
    """
    client = PrometheusClient(metrics.prometheus, metrics.scrape_seconds, metrics.ca_file, metrics.token_file)
    try:
        return round(sum(sample.value for sample in client.newest(ALARMED, metrics.champion, now)))
    finally:
        client.close()


@dataclass
class AttackProber:
    """Sends adversarial rows that the attack step kept: drawn with replacement, so that each look is a fair sample."""

    url: str
    """Of `infer` of the served model."""
    x: "NDArray[Any]"
    y: "NDArray[np.int64]"
    classes: int
    rng: np.random.Generator = field(default_factory=np.random.default_rng)

    def look(self) -> tuple[int, int]:
        """(fooled, answered) of a few rows; a row without a whole answer is an error and no success of the attack."""
        client = HttpClient(self.url)
        rows = self.rng.integers(len(self.y), size=PROBES)
        try:
            labels = [self._label(client, int(row)) for row in rows]
        finally:
            client.close()
        known = [(label, int(self.y[row])) for label, row in zip(labels, rows, strict=True) if label is not None]
        return sum(label != y for label, y in known), len(known)

    def _label(self, client: HttpClient, row: int) -> int | None:
        try:
            reply = client.exchange("POST", "", {"Content-Type": "application/json"}, body(self.x[row]))
            return read_reply(reply.data, self.classes).label if reply.status == 200 else None
        except (HttpError, ClusterError, ValueError):
            return None
