"""`python -m tests.faults.live.site STATE`: the real deployment (fence, watchdog, Envoy) in front of fast upstreams."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from holdfast.processes import children, reserved_ports, start, wait_ready
from holdfast.serving.envoy.config import Ingress
from holdfast.serving.predictor.settings import LOOPBACK, Served
from holdfast.serving.rollout.contract.arms import CANDIDATE, STABLE
from holdfast.serving.rollout.local import deployment
from holdfast.serving.rollout.local.envoy import EnvoyDriver, ServerPair
from holdfast.serving.rollout.local.servers import RunningServers

UPSTREAM = Path(__file__).with_name("upstream.py")


@asynccontextmanager
async def running_servers(
    folder: Path,
    *,
    stable: Served,
    candidate: Served,
    slow_ms: float,
    max_body_bytes: int | None,
    arm_header_from: tuple[str, ...],
) -> AsyncIterator[RunningServers]:
    """As `holdfast.serving.rollout.local.servers.running_servers`, with servers that hold no model."""
    with children() as started, reserved_ports(2) as ports:
        servers = {}
        for arm, served, port in ((STABLE, stable, ports[0]), (CANDIDATE, candidate, ports[1])):
            words = [str(port), str(served.version), *([served.game_day] if served.game_day else [])]
            servers[arm] = start(arm, [sys.executable, str(UPSTREAM), *words], folder)
            started.append(servers[arm])
        for arm, port in ((STABLE, ports[0]), (CANDIDATE, ports[1])):
            await wait_ready(servers[arm], partial(_listens, port))
        pair = ServerPair({STABLE: ports[0], CANDIDATE: ports[1]}, lambda arm: servers[arm].alive)
        ingress = Ingress(stable.name, stable.version, candidate.version, arm_header_from=arm_header_from)
        driver = EnvoyDriver.prepare(folder / "envoy", pair, slow_ms, ingress)
        try:
            router = start("envoy", driver.envoy.command, folder)
            started.append(router)
            await wait_ready(router, driver.envoy.live, 20.0)
            url = f"http://{LOOPBACK}:{await driver.envoy.port()}/v2/models/{stable.name}/infer"
            yield RunningServers(driver, url, driver.envoy.layout.probes, {**servers, "envoy": router})
        finally:
            await driver.close()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True


if __name__ == "__main__":
    deployment.running_servers = running_servers  # type: ignore[assignment, attr-defined]
    deployment._admitted = lambda served: served  # type: ignore[assignment, return-value]
    sys.exit(asyncio.run(deployment.run(Path(sys.argv[1]))))
