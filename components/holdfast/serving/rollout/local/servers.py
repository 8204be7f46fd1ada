"""Two model servers and the router in front of them, as children of this process, in a private folder."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import aiohttp

from holdfast.processes import (
    LOOPBACK,
    ServerProcess,
    children,
    require_free,
    reserved_ports,
    server_environment,
    start,
    wait_ready,
)
from holdfast.serving.envoy.config import Ingress
from holdfast.serving.predictor.settings import largest_body, write_settings
from holdfast.serving.rollout.contract.arms import CANDIDATE, STABLE
from holdfast.serving.rollout.contract.served_arm import ServedArm
from holdfast.serving.rollout.local.envoy import EnvoyDriver, ServerPair
from holdfast.warm import children as warm

ENVOY_SECONDS = 60.0
_PROBE_SECONDS = 2.0


@dataclass(frozen=True)
class RunningServers:
    """Both model servers and the router."""

    driver: EnvoyDriver
    url: str
    """Where clients send inference requests."""
    probes: Path
    """The unix socket where the header `x-rollout` leads to an arm."""
    children: dict[str, ServerProcess]


@asynccontextmanager
async def running_servers(
    folder: Path,
    *,
    stable: ServedArm,
    candidate: ServedArm,
    slow_ms: float,
    max_body_bytes: int | None = None,
    arm_header_from: tuple[str, ...] = (),
) -> AsyncIterator[RunningServers]:
    """Starts both servers at once, then Envoy; all are gone on the way out, after an error too.

    Args:
        folder: private; holds settings, logs and sockets.
        stable: the arm that has the traffic.
        candidate: the other one.
        slow_ms: an answer that takes longer is slow.
        max_body_bytes: largest request of a client; None: what the model's largest request needs.
        arm_header_from: addresses (CIDR) of clients who may choose their arm.

    Raises:
        RefusedError: a server refused its model.
        RolloutError: one of them did not start.
    """
    served = {name: _limited(arm, max_body_bytes) for name, arm in ((STABLE, stable), (CANDIDATE, candidate))}
    with children() as started, reserved_ports(4) as ports:
        servers = {
            name: start_server(folder, name, arm, rest=ports[2 * i], grpc=ports[2 * i + 1])
            for i, (name, arm) in enumerate(served.items())
        }
        started += servers.values()
        await _ready(servers, {STABLE: ports[0], CANDIDATE: ports[2]}, stable.served.name)
        pair = ServerPair(
            {STABLE: ports[0], CANDIDATE: ports[2]},
            lambda arm: servers[arm].alive,
            lambda arm: servers[arm].exit_code,
        )
        driver = EnvoyDriver.prepare(folder / "envoy", pair, slow_ms, _ingress(served, arm_header_from))
        try:
            router = start("envoy", driver.envoy.command, folder)
            started.append(router)
            await wait_ready(router, driver.envoy.live, ENVOY_SECONDS)
            url = f"http://{LOOPBACK}:{await driver.envoy.port()}/v2/models/{stable.served.name}/infer"
            yield RunningServers(driver, url, driver.envoy.layout.probes, {**servers, "envoy": router})
        finally:
            await driver.close()


def _limited(arm: ServedArm, max_body_bytes: int | None) -> ServedArm:
    """An arm whose server takes bodies of that size, where the plan has one."""
    if max_body_bytes is None:
        return arm
    options = replace(arm.served.options, max_body_bytes=max_body_bytes)
    return replace(arm, served=replace(arm.served, options=options))


def _ingress(arms: dict[str, ServedArm], arm_header_from: tuple[str, ...]) -> Ingress:
    stable, candidate = arms[STABLE].served, arms[CANDIDATE].served
    largest = max(largest_body(arm.served.options, arm.model.document.input) for arm in arms.values())
    versions = stable.version, candidate.version
    return Ingress(stable.name, *versions, max_body_bytes=largest, arm_header_from=arm_header_from)


def start_server(folder: Path, name: str, arm: ServedArm, *, rest: int, grpc: int) -> ServerProcess:
    """Starts one model server on two loopback ports.

    Raises:
        RolloutError: one of the ports is taken.
    """
    for port in (rest, grpc):
        require_free(port)
    document, place = arm.model.document, folder / name
    write_settings(place, arm.served, document.input, len(document.classes), rest=rest, grpc=grpc)
    log = place / f"{name}.log"
    with log.open("wb") as stream:
        process = warm.start(
            "holdfast.serving.predictor",
            [str(place)],
            out=stream.fileno(),
            folder=place,
            env=server_environment(),
            told=signal.SIGKILL,
        )
    return ServerProcess(name, process, log)


async def server_ready(session: aiohttp.ClientSession, port: int, name: str) -> bool:
    """Whether the model server on `port` answers for model `name`."""
    try:
        async with session.get(f"http://{LOOPBACK}:{port}/v2/models/{name}/ready") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def _ready(servers: dict[str, ServerProcess], ports: dict[str, int], name: str) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PROBE_SECONDS)) as session:
        # Both are starting already; the candidate is asked first, because it is the one that may be refused.
        for arm in (CANDIDATE, STABLE):
            await wait_ready(servers[arm], partial(server_ready, session, ports[arm], name))
