"""What runs on this machine during a rollout: two model servers, Envoy, and the watchdog in front of Envoy's files.

The deployment is a process of its own, so that it outlives a driver that dies. It is the only writer of Envoy's routes
and obeys only the driver with the highest fence token. A driver holds a lease that every `apply` renews: without it a
weight or a mirror is taken back, and a deployment that no driver spoke to for a while ends, with all that it started.

One request and one answer per line, JSON, over a unix socket in a private folder.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from holdfast.artifacts.folder import replace_file
from holdfast.errors import FencedError, HoldfastError, RolloutError
from holdfast.serving.predictor.admission import admit
from holdfast.serving.predictor.game_day import BEGINS
from holdfast.serving.predictor.settings import Served
from holdfast.serving.rollout.contract.served_arm import ServedArm
from holdfast.serving.rollout.local.envoy import EnvoyDriver
from holdfast.serving.rollout.local.launch import ABOUT, SPEC, Spec
from holdfast.serving.rollout.local.servers import RunningServers, running_servers

SOCKET = "deployment.sock"
_TICK_SECONDS = 0.05
_MAX_LINE = 2**16


@dataclass
class LocalDeployment:
    """The running deployment."""

    spec: Spec
    servers: RunningServers
    fence: int = 0
    """Highest token that a driver has shown."""
    heard: float = field(default_factory=time.monotonic)
    expires: float = float("inf")
    """When the lease ends; only read while the candidate gets anything."""
    kept: bool = False
    """The candidate was promoted: no lease is needed any more."""
    fired: int = 0
    """How often a lease ended, and the candidate was taken out of traffic."""
    talking: int = 0
    """Open connections: the kernel closes that of a driver that dies."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One change of routes at a time."""

    @property
    def driver(self) -> EnvoyDriver:
        """The driver of the one Envoy."""
        return self.servers.driver

    async def answer(self, line: bytes) -> dict[str, object]:
        """What one request gives, or `{"error": ..., "fenced": ...}`."""
        try:
            asked = json.loads(line)
            act = self._acts()[asked["op"]]
        except (ValueError, KeyError, TypeError):
            return {"error": f"expected a JSON object with a known op, found {line[:80]!r}"}
        try:
            if asked["op"] != "hello":
                self._admit(asked)
            return await act(asked)
        except FencedError as error:
            return {"error": str(error), "fenced": True}
        except (HoldfastError, KeyError, TypeError, ValueError) as error:
            return {"error": str(error) or repr(error)}

    def _acts(self) -> dict[str, Callable[[Mapping[str, Any]], Awaitable[dict[str, object]]]]:
        return {
            "hello": self._hello,
            "apply": self._apply,
            "observe": self._observe,
            "remove": self._remove,
            "promote": self._promote,
            "health": self._health,
            "tail": self._tail,
            "end": self._end,
        }

    def _admit(self, asked: Mapping[str, Any]) -> None:
        """Only the newest driver is heard; whoever shows a higher token is the newest."""
        fence = int(asked["fence"])
        if fence < self.fence:
            raise FencedError(f"driver {fence} was followed by driver {self.fence}; it may not move traffic any more")
        self.fence = fence
        self.heard = time.monotonic()

    async def _hello(self, asked: Mapping[str, Any]) -> dict[str, object]:
        pids = {name: child.process.pid for name, child in self.servers.children.items()}
        where = {"url": self.servers.url, "probes": str(self.servers.probes)}
        return {**where, "pids": pids, "pid": os.getpid(), "fence": self.fence, "fired": self.fired}

    async def _apply(self, asked: Mapping[str, Any]) -> dict[str, object]:
        async with self.turn:
            self._admit(asked)
            self.expires = time.monotonic() + self.spec.ttl_seconds
            self.kept = False
            await self.driver.apply(int(asked["weight"]), bool(asked["shadow"]))
        return {}

    async def _remove(self, asked: Mapping[str, Any]) -> dict[str, object]:
        async with self.turn:
            self._admit(asked)
            self.kept = False
            if self.servers.children["envoy"].alive:  # without a router nothing leads to the candidate
                await self.driver.remove_candidate()
        return {}

    async def _promote(self, asked: Mapping[str, Any]) -> dict[str, object]:
        async with self.turn:
            self._admit(asked)
            await self.driver.apply(100, False)
            self.kept = True
        return {}

    async def _observe(self, asked: Mapping[str, Any]) -> dict[str, object]:
        return {"reading": asdict(await self.driver.observe())}

    async def _health(self, asked: Mapping[str, Any]) -> dict[str, object]:
        return asdict(await self.driver.health())

    async def _tail(self, asked: Mapping[str, Any]) -> dict[str, object]:
        child = self.servers.children[str(asked["arm"])]
        lines = child.log.read_text(errors="replace").splitlines() if child.log.exists() else []
        begins = [line for line in lines if line.startswith(BEGINS)]
        return {"tail": child.tail(), "begins": begins[:1]}

    async def _end(self, asked: Mapping[str, Any]) -> dict[str, object]:
        self.ended.set()
        return {}

    async def watch(self) -> None:
        """The watchdog; returns when the deployment should end."""
        while not self.ended.is_set():
            now = time.monotonic()
            if self.talking:
                self.heard = now
            elif now - self.heard > self.spec.linger_seconds:
                _say(f"no driver for {self.spec.linger_seconds:g} s: this deployment ends")
                return
            exposed = self.driver.desired.weight or self.driver.desired.shadow
            if exposed and not self.kept and now > self.expires:
                await self._fire()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), _TICK_SECONDS)

    async def _fire(self) -> None:
        async with self.turn:
            if time.monotonic() <= self.expires:
                return
            try:
                await self.driver.apply(0, False)
            except RolloutError as error:
                _say(f"lease ended: {error}; trying again")
                return
        self.fired += 1
        _say(f"lease ended: no driver for {self.spec.ttl_seconds:g} s, the candidate's weight is 0")


async def run(state: Path) -> int:
    """Serves the deployment that `state` describes until its driver ends it, or is gone; returns the exit code."""
    spec = Spec.from_json(json.loads((state / SPEC).read_bytes()))
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-"))
    try:
        return await _serve(state, folder, spec)
    except HoldfastError as error:
        _announce(state, {"error": str(error), "code": error.exit_code})
        return error.exit_code
    except asyncio.CancelledError:
        _announce(state, {"error": "told to stop", "code": 1})
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _serve(state: Path, folder: Path, spec: Spec) -> int:
    async with running_servers(
        folder,
        stable=_admitted(spec.stable),
        candidate=_admitted(spec.candidate),
        slow_ms=spec.slow_ms,
        max_body_bytes=spec.max_body_bytes,
        arm_header_from=spec.arm_header_from,
    ) as servers:
        deployment = LocalDeployment(spec, servers)
        server = await asyncio.start_unix_server(_talker(deployment), str(folder / SOCKET), limit=_MAX_LINE)
        (folder / SOCKET).chmod(0o600)
        async with server:
            _announce(state, {"socket": str(folder / SOCKET), **await deployment._hello({})})
            await deployment.watch()
    return 0


def _talker(deployment: LocalDeployment) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        deployment.talking += 1
        try:
            # Cancelled: the deployment ends while a driver is connected.
            with contextlib.suppress(ConnectionError, ValueError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while line := await reader.readline():
                    writer.write(json.dumps(await deployment.answer(line)).encode() + b"\n")
                    await writer.drain()
        finally:
            deployment.talking -= 1
            writer.close()

    return talk


def _admitted(served: Served) -> ServedArm:
    return ServedArm(served, admit(served.model, served.decision, served.trust, incumbent=served.incumbent))


def _announce(state: Path, about: Mapping[str, object]) -> None:
    replace_file(state / ABOUT, json.dumps(about).encode())


def _say(message: str) -> None:
    sys.stderr.write(f"{time.monotonic():.3f} {message}\n")
    sys.stderr.flush()
