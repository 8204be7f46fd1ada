"""What runs on this machine during a rollout: two model servers, Envoy, and the watchdog in front of Envoy's files.

The site is a process of its own, so that it outlives a driver that dies. It is the only writer of Envoy's routes and
obeys only the driver with the highest fence token. A weight or a mirror that no driver renewed in time is taken back
(dead-man's switch), and a site that no driver spoke to for a while ends, with everything it started.

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
from holdfast.serving.rollout.contract.arms import CANDIDATE, STABLE
from holdfast.serving.rollout.contract.side import Side
from holdfast.serving.rollout.local.envoy import Envoy
from holdfast.serving.rollout.local.launch import ABOUT, SPEC
from holdfast.serving.rollout.local.servers import Stage, stage

SOCKET = "site.sock"
_TICK_SECONDS = 0.05
_MAX_LINE = 2**16


@dataclass(frozen=True)
class Spec:
    """What a site serves and how long it trusts a driver that is silent."""

    stable: Served
    candidate: Served
    slow_ms: float
    ttl_seconds: float = 3.0
    """A weight or a mirror that nobody renewed for so long is taken back."""
    linger_seconds: float = 15.0
    """A site that no driver spoke to for so long ends."""
    max_body_bytes: int | None = None
    """Largest request of a client; None: as `holdfast.serving.predictor.settings.largest_body` says."""
    arm_header_from: tuple[str, ...] = ()
    """Addresses (CIDR) of clients who may choose their arm."""

    def to_json(self) -> dict[str, object]:
        """As JSON values."""
        sides = {arm: getattr(self, arm).as_json() for arm in (STABLE, CANDIDATE)}
        times = {k: getattr(self, k) for k in ("slow_ms", "ttl_seconds", "linger_seconds")}
        return {
            **sides,
            **times,
            "max_body_bytes": self.max_body_bytes,
            "arm_header_from": list(self.arm_header_from),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Spec":
        """From `to_json`."""
        return cls(
            Served.from_json(values[STABLE]),
            Served.from_json(values[CANDIDATE]),
            **{k: float(values[k]) for k in ("slow_ms", "ttl_seconds", "linger_seconds")},
            max_body_bytes=values["max_body_bytes"],
            arm_header_from=tuple(values["arm_header_from"]),
        )


@dataclass
class Site:
    """The running site."""

    spec: Spec
    staged: Stage
    fence: int = 0
    """Highest token that a driver has shown."""
    heard: float = field(default_factory=time.monotonic)
    expires: float = float("inf")
    """When the dead-man's switch fires; only looked at while the candidate gets anything."""
    kept: bool = False
    """The candidate was promoted: no dead-man's switch any more."""
    fired: int = 0
    talking: int = 0
    """Open connections: the kernel closes that of a driver that dies."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One change of routes at a time."""

    @property
    def driver(self) -> Envoy:
        """The one Envoy."""
        return self.staged.driver

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
        pids = {name: child.process.pid for name, child in self.staged.children.items()}
        where = {"url": self.staged.url, "probes": str(self.staged.probes)}
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
            if self.staged.children["envoy"].alive:  # without a router nothing leads to the candidate
                await self.driver.remove_candidate()
        return {}

    async def _promote(self, asked: Mapping[str, Any]) -> dict[str, object]:
        async with self.turn:
            self._admit(asked)
            await self.driver.apply(100, False)
            self.kept = True
        return {}

    async def _observe(self, asked: Mapping[str, Any]) -> dict[str, object]:
        return {"snapshot": asdict(await self.driver.observe())}

    async def _health(self, asked: Mapping[str, Any]) -> dict[str, object]:
        return asdict(await self.driver.health())

    async def _tail(self, asked: Mapping[str, Any]) -> dict[str, object]:
        child = self.staged.children[str(asked["arm"])]
        lines = child.log.read_text(errors="replace").splitlines() if child.log.exists() else []
        begins = [line for line in lines if line.startswith(BEGINS)]
        return {"tail": child.tail(), "begins": begins[:1]}

    async def _end(self, asked: Mapping[str, Any]) -> dict[str, object]:
        self.ended.set()
        return {}

    async def watch(self) -> None:
        """The watchdog; returns when the site should end."""
        while not self.ended.is_set():
            now = time.monotonic()
            if self.talking:
                self.heard = now
            elif now - self.heard > self.spec.linger_seconds:
                _say(f"no driver for {self.spec.linger_seconds:g} s: this site ends")
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
                _say(f"dead-man's switch: {error}; trying again")
                return
        self.fired += 1
        _say(f"dead-man's switch: no driver for {self.spec.ttl_seconds:g} s, the candidate's weight is 0")


async def run(state: Path) -> int:
    """Serves the site that `state` describes until its driver ends it, or is gone; returns the exit code."""
    spec = Spec.from_json(json.loads((state / SPEC).read_bytes()))
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-"))
    try:
        return await _serve(state, folder, spec)
    except HoldfastError as error:
        _tell(state, {"error": str(error), "code": error.exit_code})
        return error.exit_code
    except asyncio.CancelledError:
        _tell(state, {"error": "told to stop", "code": 1})
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _serve(state: Path, folder: Path, spec: Spec) -> int:
    sides = {arm: _side(getattr(spec, arm)) for arm in (STABLE, CANDIDATE)}
    async with stage(
        folder,
        stable=sides[STABLE],
        candidate=sides[CANDIDATE],
        slow_ms=spec.slow_ms,
        max_body_bytes=spec.max_body_bytes,
        arm_header_from=spec.arm_header_from,
    ) as staged:
        site = Site(spec, staged)
        server = await asyncio.start_unix_server(_talker(site), str(folder / SOCKET), limit=_MAX_LINE)
        (folder / SOCKET).chmod(0o600)
        async with server:
            _tell(state, {"socket": str(folder / SOCKET), **await site._hello({})})
            await site.watch()
    return 0


def _talker(site: Site) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        site.talking += 1
        try:
            # Cancelled: the site ends while a driver is connected.
            with contextlib.suppress(ConnectionError, ValueError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while line := await reader.readline():
                    writer.write(json.dumps(await site.answer(line)).encode() + b"\n")
                    await writer.drain()
        finally:
            site.talking -= 1
            writer.close()

    return talk


def _side(served: Served) -> Side:
    return Side(served, admit(served.model, served.decision))


def _tell(state: Path, about: Mapping[str, object]) -> None:
    replace_file(state / ABOUT, json.dumps(about).encode())


def _say(message: str) -> None:
    sys.stderr.write(f"{time.monotonic():.3f} {message}\n")
    sys.stderr.flush()
