"""Probes: one row to both arms at once, adversarial rows to the candidate alone.

A router discards a shadow's answer, so this is how answers are compared. On this machine both arms are behind one unix
socket, whose listener reads a header (`x-rollout`); on a cluster each has an address of its own.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.errors import RolloutError
from holdfast.serving.protocol import Reply
from holdfast.serving.rollout.contract.address import Address
from holdfast.serving.rollout.contract.arms import ARM_HEADER, CANDIDATE, STABLE, Arms, Destination
from holdfast.serving.rollout.traffic.answers import TrafficCounts, read
from holdfast.serving.rollout.traffic.rows import Attacks, Rows
from holdfast.serving.rollout.traffic.wire import Caller, Failed

MOST_PROBES = 64
"""Probes that run at once; more would be a load test of a candidate that hangs."""
PairedReplies = tuple[Reply | Failed, Reply | Failed]
"""What champion and candidate answered to one row."""


@dataclass
class ArmClient:
    """One arm, and connections to it that no probe uses."""

    where: Destination
    timeout: float
    socket: Path | None = None
    """A unix socket that is connected to instead of the address in `where`."""
    address: Address = field(init=False)
    headers: tuple[str, ...] = field(init=False)
    version: str | None = field(default=None, init=False)
    """What its answers said about who gave them when it was warmed up."""
    _idle: list[Caller] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.address = replace(Address.parse(self.where.url), socket=self.socket)
        self.headers = tuple(f"{name}: {value}" for name, value in self.where.headers.items())

    async def ask(self, row: bytes, classes: int) -> Reply | Failed:
        """The answer to one row, on a connection that no other probe uses meanwhile."""
        caller = self._idle.pop() if self._idle else Caller(self.address, self.timeout)
        outcome = await caller.ask(self.address.request(row, *self.headers))
        self._idle.append(caller)
        return read(outcome, classes)

    def strayed(self, reply: Reply | Failed) -> bool:
        """Whether another than the arm that was warmed up has answered."""
        return isinstance(reply, Reply) and self.version is not None and reply.version != self.version

    def close(self) -> None:
        """Closes the connections; none is in use."""
        for caller in self._idle:
            caller.close()


@dataclass
class Prober:
    """Sends them, as a part of the replay's event loop."""

    rows: Rows
    attacks: Attacks
    counts: TrafficCounts
    champion: ArmClient
    candidate: ArmClient
    one_address: bool = False
    """Whether both arms are behind one address, on one machine."""
    ended: bool = False
    """Told to end: what comes now is no evidence on the arms."""
    under_way: int = 0

    @classmethod
    def behind(
        cls, url: str, socket: Path | None, rows: Rows, attacks: Attacks, counts: TrafficCounts, timeout: float
    ) -> "Prober":
        """A prober of two arms behind one address, or the unix socket, which reads the header `x-rollout`."""
        champion, candidate = (Destination(url=url, headers={ARM_HEADER: arm}) for arm in (STABLE, CANDIDATE))
        arms = ArmClient(champion, timeout, socket), ArmClient(candidate, timeout, socket)
        return cls(rows, attacks, counts, arms[0], arms[1], one_address=True)

    @classmethod
    def at(cls, arms: Arms, rows: Rows, attacks: Attacks, counts: TrafficCounts, timeout: float) -> "Prober":
        """A prober of two arms with an address each."""
        return cls(rows, attacks, counts, ArmClient(arms.champion, timeout), ArmClient(arms.candidate, timeout))

    @property
    def full(self) -> bool:
        """Whether no more should be begun now."""
        return self.under_way >= MOST_PROBES

    @property
    def kinds(self) -> int:
        """How many probes a turn has: a pair and, where there are adversarial rows, one of them."""
        return 2 if self.attacks.bodies else 1

    def turns(self, seed: int, number: int) -> Iterator[Coroutine[Any, Any, None]]:
        """Pairs, and after each of them the next adversarial row; each counts as under way when it is taken."""
        attacks = cycle(zip(self.attacks.bodies, self.attacks.labels, strict=True))
        for chosen in order(seed, number, len(self.rows.bodies)):
            self.under_way += 1
            yield self._pair(self.rows.bodies[chosen])
            if self.attacks.bodies:
                self.under_way += 1
                yield self._attack(*next(attacks))

    async def warm(self, number: int) -> PairedReplies:
        """The answers of both arms to a row that is not counted."""
        return await self._both(self.rows.bodies[number % len(self.rows.bodies)])

    def require_two_arms(self, answers: list[PairedReplies]) -> None:
        """Learns from uncounted answers who the arms are.

        Raises:
            RolloutError: the champion answers nothing that can be compared, one address leads to two models, or both
                lead to one.
        """
        champion = answers[0][0]
        if all(isinstance(pair[0], Failed) for pair in answers) and isinstance(champion, Failed):
            why = f"{champion.kind}: {champion.reason}"
            raise RolloutError(
                f"{self.champion.where.url}: expected the champion's label and probabilities, found {why}"
            )
        for arm, replies in zip((self.champion, self.candidate), zip(*answers, strict=True), strict=True):
            arm.version = _one_version(arm.where.url, replies)
        if self.champion.version is not None and self.champion.version == self.candidate.version:
            urls = " and ".join(dict.fromkeys((self.champion.where.url, self.candidate.where.url)))
            raise RolloutError(f"{urls}: expected two models, found version {self.champion.version} as either arm")

    def close(self) -> None:
        """Closes all connections."""
        self.champion.close()
        self.candidate.close()

    async def _both(self, row: bytes) -> PairedReplies:
        classes = self.rows.classes
        return await asyncio.gather(self.champion.ask(row, classes), self.candidate.ask(row, classes))

    async def _pair(self, row: bytes) -> None:
        champion, candidate = await self._both(row)
        self.under_way -= 1
        if self.ended:
            return
        if self.champion.strayed(champion) or self.candidate.strayed(candidate):
            self.counts.strays += 1
        else:
            self.counts.pair(champion, candidate)

    async def _attack(self, row: bytes, label: int) -> None:
        """Behind one address, a copy goes to the champion too: latencies are compared, so both are to be as busy."""
        asked = [self.candidate.ask(row, self.rows.classes)]
        if self.one_address:
            asked.append(self.champion.ask(row, self.rows.classes))
        reply = (await asyncio.gather(*asked))[0]
        self.under_way -= 1
        if self.ended:
            return
        if self.candidate.strayed(reply):
            self.counts.strays += 1
        else:
            self.counts.attack(reply, label)


def order(seed: int, number: int, rows: int) -> Iterator[int]:
    """The rows that sender `number` sends, one after the other, without end."""
    chance = np.random.default_rng([seed, number])
    while True:
        yield from chance.integers(rows, size=1024).tolist()


def _one_version(url: str, replies: Sequence[Reply | Failed]) -> str | None:
    found = sorted({str(reply.version) for reply in replies if isinstance(reply, Reply) and reply.version is not None})
    if len(found) > 1:
        raise RolloutError(f"{url}: expected the answers of one model, found versions {', '.join(found)}")
    return found[0] if found else None
