"""Two model servers and the router in front of them, as children of this process, in a private folder."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import aiohttp

from holdfast.processes import require_free, reserved_ports
from holdfast.serving.predictor.settings import LOOPBACK, largest_body, write_settings
from holdfast.serving.rollout.contract.arms import CANDIDATE, STABLE
from holdfast.serving.rollout.contract.side import Side
from holdfast.serving.rollout.local.envoy import Arms, Envoy, listener_address
from holdfast.serving.rollout.local.envoy_config import Ingress
from holdfast.serving.rollout.local.processes import (
    Child,
    children,
    start,
    start_module,
    wait_ready,
)

ENVOY_SECONDS = 60.0
_PROBE_SECONDS = 2.0


@dataclass(frozen=True)
class Stage:
    """Everything that runs."""

    driver: Envoy
    url: str
    """Where clients send inference requests."""
    probes: Path
    """The unix socket where the header `x-rollout` leads to an arm."""
    children: dict[str, Child]


@asynccontextmanager
async def stage(
    folder: Path,
    *,
    stable: Side,
    candidate: Side,
    slow_ms: float,
    max_body_bytes: int | None = None,
    arm_header_from: tuple[str, ...] = (),
) -> AsyncIterator[Stage]:
    """Starts both servers at once, then Envoy; all are gone on the way out, whatever happened.

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
    sides = {arm: _limited(side, max_body_bytes) for arm, side in ((STABLE, stable), (CANDIDATE, candidate))}
    with children() as started, reserved_ports(4) as ports:
        servers = {
            arm: start_server(folder, arm, side, rest=ports[2 * i], grpc=ports[2 * i + 1])
            for i, (arm, side) in enumerate(sides.items())
        }
        started += servers.values()
        await _ready(servers, {STABLE: ports[0], CANDIDATE: ports[2]}, stable.served.name)
        arms = Arms(
            {STABLE: ports[0], CANDIDATE: ports[2]},
            lambda arm: servers[arm].alive,
            lambda arm: servers[arm].exit_code,
        )
        envoy = Envoy.prepare(folder / "envoy", arms, slow_ms, _ingress(sides, arm_header_from))
        try:
            router = start("envoy", envoy.command, folder)
            started.append(router)
            await wait_ready(router, envoy.live, ENVOY_SECONDS)
            url = f"{listener_address(await envoy.port())}/v2/models/{stable.served.name}/infer"
            yield Stage(envoy, url, envoy.layout.probes, {**servers, "envoy": router})
        finally:
            await envoy.close()


def _limited(side: Side, max_body_bytes: int | None) -> Side:
    """An arm whose server takes bodies of that size, where the plan says one."""
    if max_body_bytes is None:
        return side
    options = replace(side.served.options, max_body_bytes=max_body_bytes)
    return replace(side, served=replace(side.served, options=options))


def _ingress(sides: dict[str, Side], arm_header_from: tuple[str, ...]) -> Ingress:
    served = {arm: side.served for arm, side in sides.items()}
    largest = max(largest_body(side.served.options, side.model.document.input) for side in sides.values())
    versions = served[STABLE].version, served[CANDIDATE].version
    return Ingress(served[STABLE].name, *versions, max_body_bytes=largest, arm_header_from=arm_header_from)


def start_server(folder: Path, arm: str, side: Side, *, rest: int, grpc: int) -> Child:
    """Starts one model server on two loopback ports.

    Raises:
        RolloutError: one of the ports is taken.
    """
    for port in (rest, grpc):
        require_free(port)
    document = side.model.document
    write_settings(folder / arm, side.served, document.input, len(document.classes), rest=rest, grpc=grpc)
    return start_module(arm, "holdfast.serving.predictor", [str(folder / arm)], folder / arm)


async def server_ready(session: aiohttp.ClientSession, port: int, name: str) -> bool:
    """Whether the model server on `port` answers for model `name`."""
    try:
        async with session.get(f"http://{LOOPBACK}:{port}/v2/models/{name}/ready") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def _ready(servers: dict[str, Child], ports: dict[str, int], name: str) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PROBE_SECONDS)) as session:
        # Both are starting already; the candidate is looked at first, because it is the one that may be refused.
        for arm in (CANDIDATE, STABLE):
            await wait_ready(servers[arm], partial(server_ready, session, ports[arm], name))
