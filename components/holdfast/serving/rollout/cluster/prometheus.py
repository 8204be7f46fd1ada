"""Counters from Prometheus: raw cumulative samples, never rates, and never a number that is not known to be fresh.

Every series is asked for as `selector[window]` at one moment, because that answers with the samples' own times; a
plain instant query answers with up to five minutes old ones as if they were of now. Sums are made here.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from holdfast.errors import RolloutError
from holdfast.serving.rollout.cluster.store import Wall
from holdfast.serving.rollout.cluster.target import Metrics, Series
from holdfast.serving.rollout.cluster.wire import Trust, Wire
from holdfast.serving.rollout.contract.counters import Arm, Reading

MAX_BYTES = 4 * 2**20
SECONDS = 3.0
FUTURE_SECONDS = 2.0
"""So far may a sample lie ahead of our clock."""
_WINDOW = 4
"""Scrape intervals that are asked for; two are fresh, the rest tells stale from absent."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sample:
    """The newest value of one series."""

    labels: Mapping[str, str]
    value: float


@dataclass
class Prometheus:
    """Implements `holdfast.serving.rollout.contract.driver.Provider`."""

    metrics: Metrics
    wall: Wall = field(default=time.time, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        trust = Trust(ca_file=self.metrics.ca_file)
        self._wire = Wire(self.metrics.prometheus.rstrip("/"), trust, SECONDS, MAX_BYTES)

    def read(self) -> Reading:
        """Counters as of the newest scrape, all of the same moment.

        Raises:
            RolloutError: the server does not answer, or an answer is empty, stale, from the future, not a number, or
                holds a series twice; which one, in one line.
        """
        at, now, chosen = self.clock(), self.wall(), self.metrics.set
        found = {role: self._arm(role, labels, now) for role, labels in self._roles()}
        edges = {role: arm[1] for role, arm in found.items() if arm[1]}
        if len(set(edges.values())) > 1:
            raise RolloutError(f"{self._where}: expected the same buckets for both arms, found {edges}")
        width = len(next(iter(edges.values()), ()))
        arms = {role: _filled(arm[0], width) for role, arm in found.items()}
        mirrored = self._whole(chosen.mirrored, now)
        answered = arms["candidate"].answered
        return Reading(
            at=at,
            edges_ms=next(iter(edges.values()), ()),
            candidate=arms["candidate"],
            champion=arms["champion"],
            live=max(answered - mirrored, 0) if chosen.mirrored else 0,
            mirrored=mirrored,
            routed=self._whole(chosen.routed, now),
            ejections=self._whole(chosen.ejections, now),
            candidate_alive=found["candidate"][2],
            champion_alive=found["champion"][2],
        )

    def close(self) -> None:
        """Ends the connection."""
        self._wire.close()

    @property
    def _where(self) -> str:
        return self.metrics.prometheus

    def _roles(self) -> tuple[tuple[str, Mapping[str, str]], ...]:
        return (("candidate", self.metrics.candidate), ("champion", self.metrics.champion))

    def _arm(self, role: str, labels: Mapping[str, str], now: float) -> tuple[Arm, tuple[float, ...], bool]:
        """One arm's counts, its bucket edges, and whether its server is scraped."""
        chosen, up = self.metrics.set, True
        if self.metrics.up:
            up = any(sample.value == 1 for sample in self._samples(Series(metric="up"), labels, now, needed=True))
        parts = [self._samples(item, labels, now, needed=False) for item in chosen.answered]
        for item, part in zip(chosen.answered, parts, strict=True):
            if not part and not (item.absent_is_zero and any(parts)) and not (self.metrics.up and up):
                raise RolloutError(f"{self._where}: expected {item.metric} of the {role}, found no series")
        failures = [
            self._samples(item, labels, now, needed=any(parts) and not item.absent_is_zero) for item in chosen.failed
        ]
        edges, timed, within = self._times(labels, now)
        answered, failed = _total(parts), _total(failures)
        if failed > answered:
            raise RolloutError(f"{self._where}: expected at most {answered} failures of the {role}, found {failed}")
        absorbed = _total(self._samples(item, labels, now, needed=True) for item in chosen.absorbed)
        more = max(absorbed - failed, 0)
        return Arm(answered + more, failed + more, timed, within), edges, up

    def _times(self, labels: Mapping[str, str], now: float) -> tuple[tuple[float, ...], int, tuple[int, ...]]:
        """Edges in ms, answers timed, and how many came within each edge."""
        chosen = self.metrics.set
        if chosen.buckets is None:
            return (), 0, ()
        sums: dict[float, float] = {}
        for sample in self._samples(chosen.buckets, labels, now, needed=False):
            edge = _number(sample.labels.get("le", ""))
            if edge is None:
                raise RolloutError(
                    f"{self._where}: {chosen.buckets.metric}: expected a label le, found {sample.labels}"
                )
            sums[edge] = sums.get(edge, 0) + sample.value
        if not sums:
            return (), 0, ()
        edges = sorted(sums)
        counts = [round(sums[edge]) for edge in edges]
        if edges[-1] != math.inf or counts != sorted(counts):
            raise RolloutError(f"{self._where}: {chosen.buckets.metric}: expected rising buckets up to +Inf")
        scaled = tuple(round(edge * chosen.bucket_ms, 6) for edge in edges[:-1])
        return scaled, counts[-1], tuple(counts[:-1])

    def _whole(self, series: Series | None, now: float) -> int:
        return _total([self._samples(series, {}, now, needed=True)]) if series is not None else 0

    def _samples(self, series: Series, labels: Mapping[str, str], now: float, *, needed: bool) -> list[Sample]:
        """The newest sample of every series that matches."""
        selector = _selector(series, labels)
        window = max(math.ceil(_WINDOW * self.metrics.scrape_seconds * 1000), 1)
        found: dict[Labels, Sample] = {}
        for item in self._query(f"{selector}[{window}ms]", now):
            sample = self._newest(selector, item, now)
            key = tuple(sorted(sample.labels.items()))
            if key in found:
                raise RolloutError(f"{self._where}: {selector}: expected every series once, found one twice")
            found[key] = sample
        if needed and not found:
            raise RolloutError(f"{self._where}: {selector}: expected a series, found none")
        return list(found.values())

    def _newest(self, selector: str, item: Any, now: float) -> Sample:
        try:
            labels = {str(key): str(value) for key, value in item["metric"].items()}
            at, text = item["values"][-1]
            at, value = float(at), _number(text)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise RolloutError(f"{self._where}: {selector}: expected samples, found {str(item)[:80]}") from None
        age = now - at
        if value is None or not math.isfinite(value) or value < 0:
            raise RolloutError(f"{self._where}: {selector}: expected a count, found {str(text)[:40]}")
        if age < -FUTURE_SECONDS:
            raise RolloutError(
                f"{self._where}: {selector}: expected a sample of the past, found one {-age:.0f} s ahead"
            )
        if age > 2 * self.metrics.scrape_seconds:
            limit = 2 * self.metrics.scrape_seconds
            raise RolloutError(
                f"{self._where}: {selector}: expected a sample of the last {limit:g} s, found one {age:.0f} s old"
            )
        return Sample(labels, value)

    def _query(self, query: str, now: float) -> list[Any]:
        body = urlencode({"query": query, "time": f"{now:.3f}", "timeout": f"{SECONDS:g}s"}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", **self._authority()}
        reply = self._wire.exchange("POST", "/api/v1/query", headers, body)
        try:
            answer = json.loads(reply.data)
        except ValueError:
            answer = None
        whole = isinstance(answer, dict) and reply.status == 200 and answer.get("status") == "success"
        data = answer.get("data") if whole and isinstance(answer, dict) else None
        if not isinstance(data, dict) or data.get("resultType") != "matrix" or not isinstance(data.get("result"), list):
            text = " ".join(reply.data[:120].decode(errors="replace").split())
            raise RolloutError(f"{self._where}: {query}: expected a matrix, found {reply.status} {text}")
        return list(data["result"])

    def _authority(self) -> dict[str, str]:
        if self.metrics.token_file is None:
            return {}
        try:
            return {"Authorization": f"Bearer {self.metrics.token_file.read_text().strip()}"}
        except (OSError, UnicodeDecodeError) as error:
            raise RolloutError(f"{self.metrics.token_file}: expected a token, found none ({error})") from None


def _selector(series: Series, labels: Mapping[str, str]) -> str:
    """PromQL: the series' own labels over the arm's, all as anchored regular expressions."""
    both = {**labels, **series.labels}
    inside = ",".join(f"{key}=~{json.dumps(pattern)}" for key, pattern in sorted(both.items()))
    return f"{series.metric}{{{inside}}}"


def _total(parts: Iterable[Iterable[Sample]]) -> int:
    return round(sum(sample.value for part in parts for sample in part))


def _number(text: object) -> float | None:
    try:
        return float(str(text))
    except ValueError:
        return None


def _filled(arm: Arm, width: int) -> Arm:
    """An arm that has never answered has no buckets yet."""
    return arm if arm.within or not width else Arm(arm.answered, arm.failed, 0, (0,) * width)
