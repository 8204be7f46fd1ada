"""What a request costs the traffic's own HTTP/1.1 client, compared with aiohttp, which the serving lock has anyway.

Costs are CPU-seconds of the client's process, around rounds of requests that alternate between the two clients on one
event loop (uvloop); the server, which gives every body back, is another process and is not counted.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import aiohttp
import numpy as np

from benchmarks.scenes import Bench
from benchmarks.table import ROOT, Row, shown
from holdfast.errors import RolloutError
from holdfast.serving.protocol import body
from holdfast.serving.rollout.contract.address import Address
from holdfast.serving.rollout.local.processes import children, reserved_ports, start
from holdfast.serving.rollout.traffic.wire import Caller, HttpResponse

REQUESTS, ROUNDS, CONNECTIONS, SECONDS = 4000, 15, 8, 10.0
ECHO = ROOT / "benchmarks" / "served" / "echo.py"

Ask = Callable[[], Awaitable[tuple[int, bytes]]]
"""Sends one request; the status and the body of the answer."""


def run(bench: Bench) -> list[Row]:
    """The ratio of both costs, and each of them."""
    import uvloop

    with TemporaryDirectory(prefix="client") as folder, children() as started, reserved_ports(1) as (port,):
        started.append(start("echo", [sys.executable, str(ECHO), str(port)], Path(folder)))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            spent = runner.run(_rounds(port))
    return _rows(spent)


def _rows(spent: dict[str, list[float]]) -> list[Row]:
    """Of microseconds per request, round by round."""
    how = (
        f"{ROUNDS} rounds of {REQUESTS} requests with one row of digits, {CONNECTIONS} connections, clients in turn, "
        f"uvloop, an echo on loopback; aiohttp {version('aiohttp')} without cookies and decompression"
    )
    ratios = [library / ours for ours, library in zip(spent["ours"], spent["aiohttp"], strict=True)]
    costs = ", ".join(f"{name} {min(found):.0f} best, {median(found):.0f} median" for name, found in spent.items())
    return [
        shown("CPU of the client per request, aiohttp over the traffic's own", median(ratios), f"median; {how}"),
        shown("the same, CPU microseconds per request", costs, how),
    ]


async def _rounds(port: int) -> dict[str, list[float]]:
    address = Address.parse(f"http://127.0.0.1:{port}/v2/models/echo/infer")
    row = body(np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8))
    await _wait(address, row)
    async with AsyncExitStack() as closing:
        asked = {"ours": _own(address, row, closing), "aiohttp": await _library(address, row, closing)}
        spent: dict[str, list[float]] = {name: [] for name in asked}
        for number in range(ROUNDS + 1):
            for name in sorted(asked, reverse=number % 2 == 0):
                cost = await _cost(asked[name], row)
                spent[name] += [cost] if number else []  # the first round warms
    return spent


async def _wait(address: Address, row: bytes) -> None:
    caller = Caller(address, SECONDS)
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            while not isinstance(await caller.ask(address.request(row)), HttpResponse):
                await asyncio.sleep(0.05)
    caller.close()


def _own(address: Address, row: bytes, closing: AsyncExitStack) -> list[Ask]:
    """One connection for each client."""

    def client() -> Ask:
        caller, request = Caller(address, SECONDS), address.request(row)
        closing.callback(caller.close)

        async def ask() -> tuple[int, bytes]:
            found = await caller.ask(request)
            if not isinstance(found, HttpResponse):
                raise RolloutError(f"expected an answer, found {found}")
            return found.status, found.body

        return ask

    return [client() for _ in range(CONNECTIONS)]


async def _library(address: Address, row: bytes, closing: AsyncExitStack) -> list[Ask]:
    """One session for all clients, with as many connections."""
    url = f"http://{address.host}:{address.port}{address.path}"
    session = await closing.enter_async_context(
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=SECONDS),
            headers={"content-type": "application/json"},
            auto_decompress=False,
        )
    )

    async def ask() -> tuple[int, bytes]:
        async with session.post(url, data=row) as answer:
            return answer.status, await answer.read()

    return [ask] * CONNECTIONS


async def _cost(clients: list[Ask], row: bytes) -> float:
    """CPU microseconds of this process for one request."""

    async def sent(ask: Ask) -> None:
        for _ in range(REQUESTS // CONNECTIONS):
            if await ask() != (200, row):
                raise RolloutError("expected the row back, found another answer")

    before = time.process_time()
    await asyncio.gather(*map(sent, clients))
    return 1e6 * (time.process_time() - before) / REQUESTS
