"""The Envoy driver: weights by route file, counters from the admin socket.

Where the numbers are when a composite cluster hides failures: attempts at a server are in its endpoint's counters,
no matter who asked for them; answers to mirrored requests and probes in `candidate`; what a retry absorbed in
`candidate_then_stable`. What a client got wrong (4xx) is no answer of an arm and is counted nowhere; a 404 is the arm's
failure, because no client can ask for what is not served.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import aiohttp

from holdfast.artifacts.folder import replace_file
from holdfast.errors import RolloutError
from holdfast.serving.envoy import counters
from holdfast.serving.envoy.config import (
    CANDIDATE,
    COMPOSITE,
    COMPOSITE_CHOSEN,
    PROBE_ROUTES,
    ROUTES,
    STABLE,
    EnvoyConfig,
    Ingress,
    Layout,
    Timeouts,
    binary,
    bootstrap,
    clusters,
    edges_ms,
)
from holdfast.serving.envoy.routes import LiveTraffic, probe_routes, routes
from holdfast.serving.rollout.contract.counters import Arm, Reading
from holdfast.serving.rollout.contract.driver import Desired, Health

APPLY_SECONDS = 2.0
"""A change of routes that is not in effect by then is an error; 4 to 30 ms are usual."""
ADMIN_SECONDS = 2.0
_POLL_SECONDS = 0.005
_MAX_SOCKET_PATH = 100


@dataclass(frozen=True)
class ServerPair:
    """The two servers: loopback ports, and whether their processes run."""

    ports: Mapping[str, int]
    """`stable` and `candidate`."""
    alive: Callable[[str], bool]
    exit_code: Callable[[str], int | None] = lambda arm: None
    """How a process ended that does not run any more."""


@dataclass
class Envoy:
    """One Envoy on this machine, moved by files and read through its admin socket."""

    layout: Layout
    servers: ServerPair
    slow_ms: float
    ingress: Ingress
    admin: aiohttp.ClientSession
    version: int = 0
    desired: Desired = Desired()
    last: Reading = field(default_factory=Reading)
    forgetting: asyncio.TimerHandle | None = None
    """When the clusters of a removed candidate go."""

    @classmethod
    def prepare(cls, folder: Path, servers: ServerPair, slow_ms: float, ingress: Ingress) -> Self:
        """Writes the configuration of an Envoy that sends everything to stable; the process is started by the caller.

        Raises:
            RolloutError: the folder's path is too long for a unix socket.
        """
        layout = Layout(folder)
        longest = max(map(str, (layout.admin, layout.probes)), key=len)
        if len(longest) > _MAX_SOCKET_PATH:
            raise RolloutError(f"{longest}: expected a path of at most {_MAX_SOCKET_PATH} bytes; set TMPDIR shorter")
        for path in (layout.clusters, layout.routes):
            path.parent.mkdir(mode=0o700, parents=True)
        _write(layout.bootstrap, bootstrap(layout, 0, slow_ms, ingress))
        _write(layout.clusters, clusters(dict(servers.ports), 0))
        _write_routes(layout, 0, ingress, LiveTraffic())
        timeout = aiohttp.ClientTimeout(total=ADMIN_SECONDS)
        session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(layout.admin)), timeout=timeout)
        return cls(layout, servers, slow_ms, ingress, session)

    @property
    def command(self) -> list[str]:
        """How to start it."""
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        return [str(binary()), "-c", str(self.layout.bootstrap), *flags]

    async def close(self) -> None:
        """Ends the admin connection; the process is not touched."""
        if self.forgetting is not None:
            self.forgetting.cancel()
        await self.admin.close()

    async def live(self) -> bool:
        """Whether it has its configuration and takes traffic."""
        try:
            return (await self._get("/ready")).startswith("LIVE")
        except RolloutError:
            return False

    async def port(self) -> int:
        """The loopback port that clients use; the kernel chose it."""
        status = json.loads(await self._get("/listeners?format=json"))
        addresses = {found["name"]: found["local_address"] for found in status["listener_statuses"]}
        return int(addresses["clients"]["socket_address"]["port_value"])

    async def apply(self, weight: int, shadow: bool) -> None:
        """Puts `weight` percent of live traffic on the candidate; returns when Envoy reports that it is in effect.

        Raises:
            RolloutError: the candidate was removed, or Envoy did not take the change.
        """
        if not self.desired.candidate and (weight or shadow):
            raise RolloutError("the candidate was removed; a new rollout is needed to bring it back")
        wanted = Desired(weight, shadow, self.desired.candidate)
        if wanted != self.desired or not self.version:
            await self._write_routes(wanted)

    async def remove_candidate(self) -> None:
        """No route leads to the candidate any more; its clusters go when what is under way has its answer.

        A request that waits for a candidate that hangs is tried again at stable, through the cluster of both.
        """
        if not self.desired.candidate:
            return
        await self._write_routes(Desired(candidate=False))
        self.forgetting = asyncio.get_running_loop().call_later(Timeouts().request + 1, self._forget)

    def _forget(self) -> None:
        _write(self.layout.clusters, clusters({STABLE: self.servers.ports[STABLE]}, self.version))

    async def observe(self) -> Reading:
        """Counters as of now; those of a removed candidate stay what they were.

        Raises:
            RolloutError: Envoy does not answer.
        """
        stats = counters.by_cluster(json.loads(await self._get(counters.QUERY)))
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
        return Health(await self.live(), self.servers.alive(STABLE), self.servers.alive(CANDIDATE))

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

    async def _write_routes(self, desired: Desired) -> None:
        self.version += 1
        traffic = LiveTraffic(desired.weight, desired.shadow, desired.candidate)
        _write_routes(self.layout, self.version, self.ingress, traffic)
        deadline = time.monotonic() + APPLY_SECONDS
        while await self._versions() != {ROUTES: str(self.version), PROBE_ROUTES: str(self.version)}:
            if time.monotonic() > deadline:
                raise RolloutError(f"{self.layout.routes}: expected Envoy to take it within {APPLY_SECONDS:g} s")
            await asyncio.sleep(_POLL_SECONDS)
        self.desired = desired

    async def _versions(self) -> dict[str, str]:
        """Route configuration -> the version of the file that it was taken from."""
        dump = json.loads(await self._get("/config_dump?resource=dynamic_route_configs"))
        return {found["route_config"]["name"]: str(found.get("version_info")) for found in dump.get("configs", [])}

    async def _get(self, path: str) -> str:
        try:
            async with self.admin.get(f"http://envoy{path}") as response:
                return await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RolloutError(f"{self.layout.admin}: expected Envoy's admin interface, found {error!r}") from None


def _write_routes(layout: Layout, version: int, ingress: Ingress, traffic: LiveTraffic) -> None:
    _write(layout.probe_routes, probe_routes(version, traffic))
    _write(layout.routes, routes(version, ingress, traffic))


def _write(path: Path, content: EnvoyConfig) -> None:
    replace_file(path, json.dumps(content, indent=1).encode())
