"""One Envoy on this machine: a process that files configure, read through its admin socket."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import aiohttp

from holdfast.artifacts.folder import replace_file
from holdfast.errors import RolloutError
from holdfast.serving.envoy.config import (
    PROBE_ROUTES,
    ROUTES,
    EnvoyConfig,
    Ingress,
    Layout,
    binary,
    bootstrap,
    clusters,
)
from holdfast.serving.envoy.counters import QUERY, by_cluster
from holdfast.serving.envoy.routes import LiveTraffic, probe_routes, routes

APPLY_SECONDS = 2.0
"""A change of routes that is not in effect by then is an error; 4 to 30 ms are usual."""
ADMIN_SECONDS = 2.0
_POLL_SECONDS = 0.005
_MAX_SOCKET_PATH = 100


@dataclass
class Envoy:
    """An Envoy's files and admin socket."""

    layout: Layout
    ingress: Ingress
    admin: aiohttp.ClientSession
    version: int = 0
    """Of the routes that were written last."""

    @classmethod
    def prepare(cls, folder: Path, ports: Mapping[str, int], slow_ms: float, ingress: Ingress) -> Self:
        """Writes the configuration of an Envoy that sends everything to stable; the process is started by the caller.

        Args:
            folder: for its files and sockets.
            ports: of the servers, on loopback: `stable` and `candidate`.
            slow_ms: an answer that takes longer is slow.
            ingress: what clients may ask.

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
        timeout = aiohttp.ClientTimeout(total=ADMIN_SECONDS)
        session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(layout.admin)), timeout=timeout)
        envoy = cls(layout, ingress, session)
        envoy.write_clusters(ports)
        envoy._write_routes(LiveTraffic())
        return envoy

    @property
    def command(self) -> list[str]:
        """How to start it."""
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        return [str(binary()), "-c", str(self.layout.bootstrap), *flags]

    async def close(self) -> None:
        """Ends the admin connection; the process is not touched."""
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

    async def route(self, traffic: LiveTraffic) -> None:
        """Sends live requests as `traffic` has it; returns when Envoy reports that it is in effect.

        Raises:
            RolloutError: it is not in effect in time, or Envoy does not answer.
        """
        self.version += 1
        self._write_routes(traffic)
        deadline = time.monotonic() + APPLY_SECONDS
        while await self._versions() != {ROUTES: str(self.version), PROBE_ROUTES: str(self.version)}:
            if time.monotonic() > deadline:
                raise RolloutError(f"{self.layout.routes}: expected Envoy to take it within {APPLY_SECONDS:g} s")
            await asyncio.sleep(_POLL_SECONDS)

    def write_clusters(self, ports: Mapping[str, int]) -> None:
        """From now on these servers, and no others, are known."""
        _write(self.layout.clusters, clusters(dict(ports), self.version))

    async def counters(self) -> dict[str, int]:
        """As `holdfast.serving.envoy.counters.by_cluster`.

        Raises:
            RolloutError: Envoy does not answer.
        """
        return by_cluster(json.loads(await self._get(QUERY)))

    def _write_routes(self, traffic: LiveTraffic) -> None:
        _write(self.layout.probe_routes, probe_routes(self.version, traffic))
        _write(self.layout.routes, routes(self.version, self.ingress, traffic))

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


def _write(path: Path, content: EnvoyConfig) -> None:
    replace_file(path, json.dumps(content, indent=1).encode())
