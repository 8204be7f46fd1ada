"""Traffic, as a process of its own: held-out rows, sent by several clients at a rate, every answer checked and counted.

Probes (`probes.py`) run with the clients, or alone. They are not client requests and are counted apart. The
controller reads the counts from a file (`tally.py`) and imports nothing of this module.
"""

import asyncio
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import RolloutError
from holdfast.progress import say
from holdfast.serving.rollout.contract.address import Address
from holdfast.serving.rollout.contract.arms import Arms
from holdfast.serving.rollout.traffic.answers import TrafficCounts, read
from holdfast.serving.rollout.traffic.probes import PairedReplies, Prober, order
from holdfast.serving.rollout.traffic.rows import NO_ATTACKS, Attacks, Rows
from holdfast.serving.rollout.traffic.tally import Tally, write_tally
from holdfast.serving.rollout.traffic.wire import Caller, Failed

PROBE_SHARE = 0.1
"""Probe pairs per client request."""
REQUEST_SECONDS = 10.0
GIVE_UP = 3
"""A candidate that fails so often in a row is not warmed up any further: it would only be waited for."""
REPORT_SECONDS = 0.1
SAY_SECONDS = 10.0
_STEP_SECONDS = 0.1


@dataclass(frozen=True)
class LoadProfile:
    """Where to, how fast, how long."""

    where: str | Arms
    """The address of clients and probes, or those of both arms: then only probes are sent."""
    rate: float = 200.0
    """Client requests per second, all clients together; pairs per second where only probes are sent."""
    clients: int = 8
    seed: int = 0
    seconds: float | None = None
    requests: int | None = None
    """End after so many seconds or client requests; with neither, when a signal ends it."""
    probe_share: float = PROBE_SHARE
    """Probe pairs per client request; 0 means no probes and no attacks."""
    warm: int = 0
    """Rows sent to both arms, one after the other, before anything is counted; where only probes are sent,
    they must show that there are two arms."""
    timeout: float = REQUEST_SECONDS
    """Seconds until an answer counts as lost."""
    probes: Path | None = None
    """The unix socket that probes use, where the address of clients obeys no header."""

    def __post_init__(self) -> None:
        found = {name: getattr(self, name) for name in ("rate", "clients", "seconds", "requests", "timeout")}
        wrong = [f"{name} {value}" for name, value in found.items() if value is not None and not 0 < value < math.inf]
        if not 0 <= self.probe_share < math.inf:
            wrong.append(f"probe_share {self.probe_share}")
        if isinstance(self.where, Arms) and self.requests is not None:
            raise RolloutError("expected seconds or nothing as the end of probes, found a count of client requests")
        if wrong:
            raise RolloutError(f"expected finite numbers above 0, found {', '.join(wrong)}")


def replay(load: LoadProfile, rows: Rows, attacks: Attacks = NO_ATTACKS, tally: Path | None = None) -> Tally:
    """Sends until the load is done or a signal ends it; requests under way are waited for and counted.

    SIGTERM and SIGINT end the traffic, SIGUSR1 ends the probes alone. The counts so far are in the file `tally`.

    Raises:
        RolloutError: nothing could be sent at all.
    """
    import uvloop

    if tally is not None and not tally.parent.is_dir():
        raise RolloutError(f"{tally}: expected a folder to keep the tally in, found none")
    sender = _Sender(load, rows, attacks, tally)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(sender.run())
    found = sender.counts.tally(ended=True)
    _keep(tally, found)
    if found.sent and not sender.counts.reached:
        raise RolloutError(f"{load.where}: expected a server, nothing could be sent: {found.first_failure}")
    return found


def _keep(path: Path | None, tally: Tally) -> None:
    try:
        if path is not None:
            write_tally(path, tally)
    except OSError as error:
        raise RolloutError(f"{path}: expected to keep the tally, found: {error.strerror}") from None


class _Sender:
    """The clients, the probes and the task that reports on them, in one event loop."""

    def __init__(self, load: LoadProfile, rows: Rows, attacks: Attacks, tally: Path | None) -> None:
        self._load, self._rows, self._tally = load, rows, tally
        self.counts = TrafficCounts(rows.classes, attacks)
        if isinstance(load.where, Arms):
            self._address: Address | None = None
            self._prober = Prober.at(load.where, rows, attacks, self.counts, load.timeout)
        else:
            self._address = Address.parse(load.where)
            self._requests = [self._address.request(row) for row in rows.bodies]
            self._prober = Prober.behind(load.where, load.probes, rows, attacks, self.counts, load.timeout)
        self._begun, self._ended = 0, False

    async def run(self) -> None:
        """Sends until the load is done, and waits for the last answer."""
        with _signals({signal.SIGTERM: self._end, signal.SIGINT: self._end, signal.SIGUSR1: self._end_probes}):
            await self._warm()
            timer = asyncio.get_running_loop().call_later(self._load.seconds or 0, self._end)
            if self._load.seconds is None:
                timer.cancel()
            async with asyncio.TaskGroup() as reporters:
                reporting = reporters.create_task(self._report())
                await self._send()
                reporting.cancel()
            timer.cancel()

    async def _send(self) -> None:
        async with asyncio.TaskGroup() as probes:
            probes.create_task(self._probe())
            async with asyncio.TaskGroup() as clients:
                if self._address is None:
                    clients.create_task(self._until(math.inf))
                else:
                    for number in range(self._load.clients):
                        clients.create_task(self._client(number, self._address))
            self._end()  # without clients no probes

    def _end(self) -> None:
        self._ended = True

    def _end_probes(self) -> None:
        self._prober.ended = True

    async def _until(self, due: float) -> bool:
        """Waits until `due` (monotonic seconds); whether traffic still goes on then."""
        while not self._ended and (left := due - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _STEP_SECONDS))
        return not self._ended

    async def _client(self, number: int, address: Address) -> None:
        load, rows = self._load, self._rows
        caller, interval = Caller(address, load.timeout), load.clients / load.rate
        due, chosen = time.monotonic() + interval * number / load.clients, order(load.seed, number, len(rows.bodies))
        while await self._until(due) and self._another():
            began = time.monotonic()
            outcome = await caller.ask(self._requests[next(chosen)])
            now = time.monotonic()
            self.counts.client(read(outcome, rows.classes), now - began)
            # A late client does not catch up: a burst would be traffic that no client meant.
            due = max(due + interval, now)
        caller.close()

    def _another(self) -> bool:
        """Counts a client request as begun, unless that would be too many."""
        if self._load.requests is not None and self._begun >= self._load.requests:
            return False
        self._begun += 1
        return True

    async def _probe(self) -> None:
        load, prober = self._load, self._prober
        rate = load.rate if self._address is None else load.rate * load.probe_share
        if rate == 0:
            return
        interval, due, turns = 1 / (rate * prober.kinds), time.monotonic(), prober.turns(load.seed, load.clients)
        async with asyncio.TaskGroup() as probes:
            while await self._until(due) and not prober.ended:
                # Open loop: slow answers do not slow down the probing, until too many are under way.
                if not prober.full:
                    probes.create_task(next(turns))
                due = max(due + interval, time.monotonic() - interval)
        prober.close()

    async def _warm(self) -> None:
        answers: list[PairedReplies] = []
        for number in range(self._load.warm):
            last = [candidate for _, candidate in answers[-GIVE_UP:]]
            if self._ended or (len(last) == GIVE_UP and all(isinstance(reply, Failed) for reply in last)):
                break
            answers.append(await self._prober.warm(number))
        if answers and self._address is None:
            self._prober.require_two_arms(answers)

    async def _report(self) -> None:
        """Keeps the tally fresh for processes, and writes a line for people now and then."""
        began, shown, written = time.monotonic(), 0, True
        while True:
            if self._tally is not None:
                written = self._write(self._tally, complain=written)
            tenths = self._tenths(time.monotonic() - began)
            if tenths > shown:
                say(line(self.counts.tally(ended=False)))
            shown = max(tenths, shown)
            due = time.monotonic() + REPORT_SECONDS
            await asyncio.sleep(REPORT_SECONDS)
            self.counts.lags.append(max(time.monotonic() - due, 0.0))

    def _tenths(self, seconds: float) -> int:
        """How many lines people should have read by now: one per tenth, or per 10 s when the end is not known."""
        load = self._load
        if load.requests is not None:
            return 10 * self.counts.sent // load.requests
        return int(seconds * 10 / load.seconds if load.seconds is not None else seconds / SAY_SECONDS)

    def _write(self, path: Path, *, complain: bool) -> bool:
        """Writes the tally; a full disk must not end the traffic, and readers see that the tally is old."""
        try:
            write_tally(path, self.counts.tally(ended=False))
        except OSError as error:
            if complain:
                say(f"replay: {path}: expected to keep the tally, found: {error.strerror}")
            return False
        return True


def line(tally: Tally) -> str:
    """The counts in one line, for people."""
    times, probes = tally.latency_ms, tally.probes
    parts = [f"{tally.sent} sent", f"{tally.failed} failed", f"p50 {times.p50:g} ms", f"p99 {times.p99:g} ms"]
    parts += [f"{probes.pairs} pairs", f"{probes.disagreements} disagree"]
    if probes.attacks:
        parts.append(f"{probes.fooled} of {probes.attacks} attacks succeed")
    if tally.strays:
        parts.append(f"{tally.strays} answers of another model than the one asked")
    return f"replay: {', '.join(parts)}"


@contextmanager
def _signals(handlers: dict[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Handles signals inside; only the main thread can."""
    loop = asyncio.get_running_loop()
    known = handlers if threading.current_thread() is threading.main_thread() else {}
    for number, handler in known.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in known:
            loop.remove_signal_handler(number)
