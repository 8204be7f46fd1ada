"""Traffic: real held-out rows, sent by several clients at a rate through the one door, every answer counted.

Beside the clients, probes send one row to both arms (header `x-rollout`): Envoy discards a shadow's answer, so this is
how answers are compared. Probes are not client requests and are counted apart.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field

import aiohttp
import numpy as np
from numpy.typing import NDArray

from holdfast.serving.rollout.drivers.envoy_config import ARM_HEADER, CANDIDATE, STABLE

PROBE_SHARE = 0.1
"""Probe pairs per client request."""
REQUEST_SECONDS = 10.0
_DATATYPES = {"float32": "FP32", "int64": "INT64"}


@dataclass(frozen=True)
class Rows:
    """What is replayed: bodies of V2 requests with one row each, and how many classes an answer has."""

    bodies: tuple[bytes, ...]
    classes: int

    @classmethod
    def of(cls, x: NDArray[np.generic], classes: int) -> "Rows":
        """From network inputs `float32[N, ...]` or `int64[N, L]`."""
        return cls(tuple(body(row) for row in x), classes)


@dataclass
class Tally:
    """Answers so far."""

    sent: int = 0
    """Client requests that ended, well or not."""
    failed: int = 0
    """Of them, those without a whole answer: another status than 200, a wrong shape, a broken connection."""
    pairs: int = 0
    disagreements: int = 0
    first_failure: str | None = None


@dataclass
class Traffic:
    """Clients and probes on one address."""

    url: str
    rows: Rows
    rate: float
    clients: int
    seed: int
    tally: Tally = field(default_factory=Tally)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    unpaired: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when probes should stop."""

    async def run(self) -> None:
        """Sends until `ended` is set; requests under way are waited for."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        limit = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=limit) as session:
            workers = [self._client(session, number) for number in range(self.clients)]
            await asyncio.gather(*workers, self._probe(session))

    async def warm(self, rounds: int) -> None:
        """Lets both arms answer some requests that nobody counts, one after the other."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for number in range(rounds):
                row = self.rows.bodies[number % len(self.rows.bodies)]
                await asyncio.gather(*(self._ask(session, row, arm) for arm in (STABLE, CANDIDATE)))

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        chance = np.random.default_rng([self.seed, number])
        interval = self.clients / self.rate
        due = time.monotonic() + interval * number / self.clients
        while not await _set_by(self.ended, due):
            row = self.rows.bodies[int(chance.integers(len(self.rows.bodies)))]
            label, why = await self._ask(session, row, None)
            self.tally.sent += 1
            if label is None:
                self.tally.failed += 1
                self.tally.first_failure = self.tally.first_failure or why
            # A late client does not catch up: a burst would be traffic that nobody sent.
            due = max(due + interval, time.monotonic())

    async def _probe(self, session: aiohttp.ClientSession) -> None:
        chance = np.random.default_rng([self.seed, self.clients])
        interval = 1 / (self.rate * PROBE_SHARE)
        due = time.monotonic()
        running: set[asyncio.Task[None]] = set()
        while not (await _set_by(self.ended, due) or self.unpaired.is_set()):
            row = self.rows.bodies[int(chance.integers(len(self.rows.bodies)))]
            # Open loop: slow answers do not slow down the probing.
            task = asyncio.create_task(self._pair(session, row))
            running.add(task)
            task.add_done_callback(running.discard)
            due = max(due + interval, time.monotonic() - interval)
        await asyncio.gather(*running)

    async def _pair(self, session: aiohttp.ClientSession, row: bytes) -> None:
        (stable, _), (candidate, _) = await asyncio.gather(
            self._ask(session, row, STABLE), self._ask(session, row, CANDIDATE)
        )
        if stable is not None and candidate is not None and not self.unpaired.is_set():
            self.tally.pairs += 1
            self.tally.disagreements += stable != candidate

    async def _ask(self, session: aiohttp.ClientSession, row: bytes, arm: str | None) -> tuple[int | None, str]:
        """The label, or None with what was wrong."""
        headers = {"content-type": "application/json", **({ARM_HEADER: arm} if arm else {})}
        try:
            async with session.post(self.url, data=row, headers=headers) as response:
                data = await response.read()
                if response.status != 200:
                    return None, f"status {response.status}: {data[:200].decode(errors='replace')}"
            return read_label(data, self.rows.classes), ""
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, IndexError) as error:
            return None, repr(error)


def body(row: NDArray[np.generic]) -> bytes:
    """A V2 request for one row."""
    datatype = _DATATYPES[str(row.dtype)]
    # Nine digits give back the very same float32 with half the bytes of a double.
    values = [float(f"{value:.9g}") for value in row.ravel().tolist()] if datatype == "FP32" else row.ravel().tolist()
    tensor = {"name": "input", "datatype": datatype, "shape": [1, *row.shape], "data": values}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def read_label(data: bytes, classes: int) -> int:
    """The label in the answer to one row.

    Raises:
        ValueError: the answer does not have the shape that was promised.
    """
    outputs = {output["name"]: output for output in json.loads(data)["outputs"]}
    label, probabilities = outputs["label"]["data"], outputs["probabilities"]["data"]
    if len(label) != 1 or len(probabilities) != classes or not all(0 <= p <= 1.001 for p in probabilities):
        raise ValueError(f"expected 1 label and {classes} probabilities, found {len(label)} and {len(probabilities)}")
    return int(label[0])


async def _set_by(event: asyncio.Event, due: float) -> bool:
    """Waits until `due` (monotonic seconds) or until the event is set; whether it is set."""
    try:
        await asyncio.wait_for(event.wait(), max(due - time.monotonic(), 0))
    except TimeoutError:
        return event.is_set()
    return True
