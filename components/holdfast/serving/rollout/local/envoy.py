"""The Envoy driver: weights by route file, counters from the admin socket.

Where the numbers are when a composite cluster hides failures: attempts at a server are in its endpoint's counters,
no matter who asked for them; answers to mirrored requests and probes in `candidate`; what a retry absorbed in
`candidate_then_stable`. What a client got wrong (4xx) is no answer of an arm and is counted nowhere; a 404 is the arm's
failure, because no client can ask for what is not served.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from holdfast.errors import RolloutError
from holdfast.serving.envoy import counters
from holdfast.serving.envoy.config import CANDIDATE, COMPOSITE, COMPOSITE_CHOSEN, STABLE, Ingress, Timeouts, edges_ms
from holdfast.serving.envoy.process import Envoy
from holdfast.serving.envoy.routes import LiveTraffic
from holdfast.serving.rollout.contract.counters import Arm, Reading
from holdfast.serving.rollout.contract.driver import Desired, Health


@dataclass(frozen=True)
class ServerPair:
    """The two servers: loopback ports, and whether their processes run."""

    ports: Mapping[str, int]
    """`stable` and `candidate`."""
    alive: Callable[[str], bool]
    exit_code: Callable[[str], int | None] = lambda arm: None
    """How a process ended that does not run any more."""


@dataclass
class EnvoyDriver:
    """Moves traffic between two servers by one Envoy, and reads what it counted."""

    envoy: Envoy
    servers: ServerPair
    slow_ms: float
    desired: Desired = Desired()
    last: Reading = field(default_factory=Reading)
    forgetting: asyncio.TimerHandle | None = None
    """When the clusters of a removed candidate go."""

    @classmethod
    def prepare(cls, folder: Path, servers: ServerPair, slow_ms: float, ingress: Ingress) -> Self:
        """As `Envoy.prepare`."""
        return cls(Envoy.prepare(folder, servers.ports, slow_ms, ingress), servers, slow_ms)

    async def close(self) -> None:
        """Ends the admin connection; the process is not touched."""
        if self.forgetting is not None:
            self.forgetting.cancel()
        await self.envoy.close()

    async def apply(self, weight: int, shadow: bool) -> None:
        """Puts `weight` percent of live traffic on the candidate; returns when Envoy reports that it is in effect.

        Raises:
            RolloutError: the candidate was removed, or Envoy did not take the change.
        """
        if not self.desired.candidate and (weight or shadow):
            raise RolloutError("the candidate was removed; a new rollout is needed to bring it back")
        wanted = Desired(weight, shadow, self.desired.candidate)
        if wanted != self.desired or not self.envoy.version:
            await self._route(wanted)

    async def remove_candidate(self) -> None:
        """No route leads to the candidate any more; its clusters go when what is under way has its answer.

        A request that waits for a candidate that hangs is tried again at stable, through the cluster of both.
        """
        if not self.desired.candidate:
            return
        await self._route(Desired(candidate=False))
        self.forgetting = asyncio.get_running_loop().call_later(Timeouts().request + 1, self._forget)

    def _forget(self) -> None:
        self.envoy.write_clusters({STABLE: self.servers.ports[STABLE]})

    async def observe(self) -> Reading:
        """Counters as of now; those of a removed candidate stay what they were.

        Raises:
            RolloutError: Envoy does not answer.
        """
        stats = await self.envoy.counters()
        endpoints = counters.by_endpoint(stats)
        alive = {arm: self.servers.alive(arm) for arm in (CANDIDATE, STABLE)}
        if not self.desired.candidate or CANDIDATE not in endpoints:
            champion = self._champion(stats, endpoints)
            self.last = replace(
                self.last, at=time.monotonic(), champion=champion, champion_alive=alive[STABLE], weight=0
            )
            return self.last
        only = (CANDIDATE,)
        candidate = self._arm(only, counters.OF_CANDIDATE, only, stats, endpoints, self.last.candidate)
        mirrored = counters.answered(stats, CANDIDATE)
        self.last = Reading(
            at=time.monotonic(),
            edges_ms=edges_ms(self.slow_ms),
            candidate=candidate,
            champion=self._champion(stats, endpoints),
            live=max(candidate.answered - mirrored, self.last.live),
            mirrored=max(mirrored, self.last.mirrored),
            routed=max(counters.answered(stats, STABLE, COMPOSITE), self.last.routed),
            chosen=max(counters.answered(stats, COMPOSITE_CHOSEN), self.last.chosen),
            ejections=stats.get(f"{CANDIDATE}.outlier_detection.ejections_enforced_total", 0),
            weight=self.desired.weight,
            candidate_alive=alive[CANDIDATE],
            champion_alive=alive[STABLE],
            candidate_exit=None if alive[CANDIDATE] else self.servers.exit_code(CANDIDATE),
            balanced=True,
        )
        return self.last

    async def health(self) -> Health:
        """Who runs, and whether Envoy answers."""
        return Health(await self.envoy.live(), self.servers.alive(STABLE), self.servers.alive(CANDIDATE))

    def _champion(self, stats: Mapping[str, int], endpoints: Mapping[str, Mapping[str, int]]) -> Arm:
        # The last attempt through a composite is one at stable.
        lost = (*counters.OF_STABLE, COMPOSITE, COMPOSITE_CHOSEN)
        return self._arm(counters.OF_STABLE, counters.OF_STABLE, lost, stats, endpoints, self.last.champion)

    def _arm(
        self,
        served: tuple[str, ...],
        timed: tuple[str, ...],
        losing: tuple[str, ...],
        stats: Mapping[str, int],
        endpoints: Mapping[str, Mapping[str, int]],
        last: Arm,
    ) -> Arm:
        """One arm's counters; a retry that the composite made is a failure of the candidate, in any case.

        Args:
            served: clusters whose endpoint's counters are this arm's attempts.
            timed: clusters whose answers were timed, and whose retries this arm caused.
            losing: clusters whose final 404 was this arm's; one that was tried again is an error of its endpoint.
            stats: counters of clusters.
            endpoints: counters of their endpoints.
            last: what was seen before.
        """
        count = {kind: sum(endpoints[name].get(kind, 0) for name in served) for kind in counters.KINDS}
        lost = sum(stats.get(f"{name}.upstream_rq_404", 0) for name in losing)
        failed = max(count["rq_error"] + lost, *(stats.get(f"{name}.upstream_rq_retry", 0) for name in timed))
        clients = sum(counters.refused(stats, name) for name in timed)
        within = tuple(
            counters.timed(stats, timed, f"time<={counters.edge_name(edge)}") for edge in edges_ms(self.slow_ms)
        )
        answered = max(count["rq_success"] - lost - clients, 0) + failed
        timed_out = min(count["rq_timeout"], failed)
        refused = min(count["cx_connect_fail"], failed - timed_out)
        found = Arm(answered, failed, counters.timed(stats, timed, "time"), within, timed_out, refused)
        # Counters of one answer are written one after the other; between them a difference may be one too small.
        return found.at_least(last)

    async def _route(self, desired: Desired) -> None:
        await self.envoy.route(LiveTraffic(desired.weight, desired.shadow, desired.candidate))
        self.desired = desired
