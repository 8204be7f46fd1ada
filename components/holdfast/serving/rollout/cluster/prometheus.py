"""The counters of a rollout from Prometheus: the series of both arms, added up here."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from holdfast.errors import RolloutError
from holdfast.prometheus import CounterSample, PrometheusClient, number, selector
from holdfast.serving.rollout.cluster.series import CounterSelector, MetricsSource
from holdfast.serving.rollout.cluster.store import Wall
from holdfast.serving.rollout.contract.counters import Arm, Reading


@dataclass(frozen=True)
class ArmCounters:
    """Counters of one arm."""

    arm: Arm
    edges_ms: tuple[float, ...]
    """Upper edges of its latency buckets; none while it has not answered."""
    alive: bool
    """Whether its server is scraped."""

    def filled(self, width: int) -> Arm:
        """The arm with `width` buckets, also before it has answered."""
        arm = self.arm
        return arm if arm.within or not width else Arm(arm.answered, arm.failed, 0, (0,) * width)


@dataclass
class Prometheus:
    """Implements `holdfast.serving.rollout.contract.driver.Provider`."""

    metrics: MetricsSource
    wall: Wall = field(default=time.time, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        source = self.metrics
        self._client = PrometheusClient(source.prometheus, source.scrape_seconds, source.ca_file, source.token_file)

    def read(self) -> Reading:
        """Counters as of the newest scrape, all of the same moment.

        Raises:
            RolloutError: the server does not answer, or an answer is empty, stale, from the future, not a number, or
                holds a series twice; which one, in one line.
        """
        at, now, chosen = self.clock(), self.wall(), self.metrics.set
        candidate = self._arm("candidate", self.metrics.candidate, now)
        champion = self._arm("champion", self.metrics.champion, now)
        edges = candidate.edges_ms or champion.edges_ms
        if champion.edges_ms and champion.edges_ms != edges:
            found = {"candidate": candidate.edges_ms, "champion": champion.edges_ms}
            raise RolloutError(f"{self._where}: expected the same buckets for both arms, found {found}")
        mirrored = self._count(chosen.mirrored, now)
        return Reading(
            at=at,
            edges_ms=edges,
            candidate=candidate.filled(len(edges)),
            champion=champion.filled(len(edges)),
            live=max(candidate.arm.answered - mirrored, 0) if chosen.mirrored else 0,
            mirrored=mirrored,
            routed=self._count(chosen.routed, now),
            ejections=self._count(chosen.ejections, now),
            candidate_alive=candidate.alive,
            champion_alive=champion.alive,
        )

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    @property
    def _where(self) -> str:
        return self.metrics.prometheus

    def _arm(self, role: str, matchers: Mapping[str, str], now: float) -> ArmCounters:
        chosen, up = self.metrics.set, True
        if self.metrics.up:
            up = any(
                sample.value == 1 for sample in self._samples(CounterSelector(metric="up"), matchers, now, needed=True)
            )
        parts = [self._samples(item, matchers, now, needed=False) for item in chosen.answered]
        for item, part in zip(chosen.answered, parts, strict=True):
            if not part and not (item.absent_is_zero and any(parts)) and not (self.metrics.up and up):
                raise RolloutError(f"{self._where}: expected {item.metric} of the {role}, found no series")
        failures = [
            self._samples(item, matchers, now, needed=any(parts) and not item.absent_is_zero) for item in chosen.failed
        ]
        edges, timed, within = self._times(matchers, now)
        answered, failed = _total(parts), _total(failures)
        if failed > answered:
            raise RolloutError(f"{self._where}: expected at most {answered} failures of the {role}, found {failed}")
        absorbed = _total(self._samples(item, matchers, now, needed=True) for item in chosen.absorbed)
        more = max(absorbed - failed, 0)
        return ArmCounters(Arm(answered + more, failed + more, timed, within), edges, up)

    def _times(self, matchers: Mapping[str, str], now: float) -> tuple[tuple[float, ...], int, tuple[int, ...]]:
        """Edges in ms, answers timed, and how many came within each edge."""
        chosen = self.metrics.set
        if chosen.buckets is None:
            return (), 0, ()
        sums: dict[float, float] = {}
        for sample in self._samples(chosen.buckets, matchers, now, needed=False):
            edge = number(sample.labels.get("le", ""))
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

    def _count(self, series: CounterSelector | None, now: float) -> int:
        return _total([self._samples(series, {}, now, needed=True)]) if series is not None else 0

    def _samples(
        self, series: CounterSelector, matchers: Mapping[str, str], now: float, *, needed: bool
    ) -> list[CounterSample]:
        """The newest samples; the series' own labels go before the arm's."""
        both = {**matchers, **series.labels}
        found = self._client.newest(series.metric, both, now)
        if needed and not found:
            raise RolloutError(f"{self._where}: {selector(series.metric, both)}: expected a series, found none")
        return found


def _total(parts: Iterable[Iterable[CounterSample]]) -> int:
    return round(sum(sample.value for part in parts for sample in part))
