"""`python -m tests.faults.live.hostiles PORT MODEL REPORT`: clients of a rollout that do all they can to disturb it.

They send what `malformed` lists, hold half-sent requests, open and drop connections in floods, hang up on valid
requests, send bodies as large as is allowed and far larger, and ask for an arm and for other timeouts. They go on until
SIGTERM; REPORT then has what they sent and which answers were not right. Only loopback is reached.
"""

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.serving.predictor.settings import LOOPBACK
from tests.faults.live.malformed import Malformed, Target, malformed

ROW = (0.5,) * 64
SHAPE = (1, 8, 8)
MAX_BODY = 2**20 + 2**19
"""What the served model's largest request needs: 1,024 rows of 64 numbers of 24 bytes."""
PER_SECOND = 25.0
HALF_OPEN, FLOOD, HANG_UPS = 300, 200, 40
ANSWER_SECONDS = 20.0
FLOOD_SECONDS, LARGE_SECONDS = 3.0, 2.0
MANNERS = (
    "x-rollout: candidate",
    "x-rollout-key: always-the-same",
    "x-envoy-upstream-rq-timeout-ms: 1",
    "x-envoy-max-retries: 100",
    "x-envoy-upstream-alt-stat-name: x",
    "x-forwarded-for: 10.0.0.1",
)
"""Headers of valid requests that must be answered as if they were not there."""


@dataclass
class Hostiles:
    """All of them, in one event loop."""

    port: int
    target: Target
    sent: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)
    """Kind -> the first answer that was not right."""
    closed: Counter[str] = field(default_factory=Counter)
    """Requests that ended without an answer."""

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        habits = (self._malformed(), self._half_open(), self._flood(), self._large(), self._manners())
        tasks = [asyncio.create_task(habit) for habit in habits]
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _malformed(self) -> None:
        """One kind after the other, all of them again and again, a request each 1 / PER_SECOND."""
        kinds = list(malformed(self.target, MAX_BODY))
        async with asyncio.TaskGroup() as group:
            while True:
                random.shuffle(kinds)
                for kind in kinds:
                    group.create_task(self._judge(kind))
                    await asyncio.sleep(1 / PER_SECOND)

    async def _judge(self, kind: Malformed) -> None:
        status = await self._send(kind.data, kind.name)
        if status and status not in kind.statuses:
            self.wrong.setdefault(kind.name, f"{status}, expected {kind.statuses}")

    async def _half_open(self) -> None:
        """Half of them stop within the headers, half within the body; each is opened again when it is closed."""
        data = self.target.post(self.target.body())
        await asyncio.gather(*(self._hold(data[: 30 if n % 2 else -20]) for n in range(HALF_OPEN)))

    async def _hold(self, data: bytes) -> None:
        while True:
            status = await self._send(data, "half-open post")
            if status not in (0, 408):
                self.wrong.setdefault("half-open post", str(status))
            await asyncio.sleep(0.2)

    async def _flood(self) -> None:
        """Connections at once that say nothing, and valid requests whose client does not wait for the answer."""
        valid = self.target.post(self.target.body())
        while True:
            await asyncio.gather(*(self._drop(b"" if n >= HANG_UPS else valid) for n in range(FLOOD)))
            await asyncio.sleep(FLOOD_SECONDS)

    async def _drop(self, data: bytes) -> None:
        self.sent["flood"] += 1
        with suppress(OSError):
            _, writer = await asyncio.open_connection(LOOPBACK, self.port)
            writer.write(data)
            await asyncio.sleep(0.002)
            writer.transport.abort()

    async def _large(self) -> None:
        """A wrong body as large as is allowed, and one of 150 MB."""
        numbers = b"0.5," * ((MAX_BODY - 1000) // 4)
        head, _, tail = self.target.body(data="PLACE").partition(b'"PLACE"')
        allowed = self.target.post(head + b"[" + numbers + b"1]" + tail)
        line = f"POST {self.target.infer} HTTP/1.1\r\nhost: models\r\ncontent-length: 150000000\r\n\r\n".encode()
        while True:
            await self._judge(Malformed("a wrong body of the largest size", allowed))
            await self._judge(Malformed("150 MB", line + b"x" * 20_000_000, (413,)))
            await asyncio.sleep(LARGE_SECONDS)

    async def _manners(self) -> None:
        while True:
            for header in MANNERS:
                await self._judge(Malformed(header, self.target.post(self.target.body(), header), (200,)))
            await asyncio.sleep(0.2)

    async def _send(self, data: bytes, name: str) -> int:
        """The status of the answer; 0: the connection ended without one."""
        self.sent[name] += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
                try:
                    writer.write(data)  # not waited for: a refusal comes before all of it is sent
                    line = await reader.readline()
                finally:
                    writer.transport.abort()
            return int(line[9:12])
        except (OSError, ValueError):
            self.closed[name] += 1
            return 0

    def report(self) -> dict[str, object]:
        """As JSON values."""
        return {"sent": dict(self.sent), "wrong": self.wrong, "closed": dict(self.closed)}


async def main(port: int, model: str, report: Path) -> None:
    """Runs until SIGTERM, then writes what happened."""
    stop, hostiles = asyncio.Event(), Hostiles(port, Target(model, SHAPE, ROW))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await hostiles.run(stop)
    report.write_text(json.dumps(hostiles.report()))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
