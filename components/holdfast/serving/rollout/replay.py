"""Traffic, as a process of its own: held-out rows, sent by several clients at a rate, every answer checked and counted.

Beside the clients, probes send one row to both arms (header `x-rollout`): a router discards a shadow's answer, so this
is how answers are compared. Adversarial rows go to the candidate alone. Probes are not client requests and are counted
apart. The controller reads the counts from a file (`tally.py`) and imports nothing of this module.
"""

import asyncio
import json
import math
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import RolloutError
from holdfast.progress import say
from holdfast.serving.rollout.drivers.envoy_config import ARM_HEADER, CANDIDATE, STABLE
from holdfast.serving.rollout.judge.counters import Probes
from holdfast.serving.rollout.tally import Latency, Tally, write_tally
from holdfast.serving.rollout.wire import Address, Answer, Caller, Failed, header

PROBE_SHARE = 0.1
"""Probe pairs per client request."""
REQUEST_SECONDS = 10.0
MOST_PROBES = 64
"""So many probes run at once; more would be a load test of a candidate that hangs."""
TELL_SECONDS = 0.1
SAY_SECONDS = 10.0
MOST_ARMS = 16
MAX_ROWS_BYTES = 2**30
_DATATYPES = {"float32": "FP32", "int64": "INT64"}
_STEP_SECONDS = 0.1
_ROUNDING = 1e-6
"""How far above 1 a probability may lie that was summed and printed as float32."""


# --- what is sent -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """What is replayed: bodies of V2 requests with one row each, and how many classes an answer has."""

    bodies: tuple[bytes, ...]
    classes: int

    @classmethod
    def of(cls, x: NDArray[np.generic], classes: int) -> "Rows":
        """From network inputs `float32[N, ...]` or `int64[N, L]`."""
        return cls(tuple(body(row) for row in x), classes)


@dataclass(frozen=True)
class Attacks:
    """Adversarial rows for the candidate: bodies, the true labels, and how many fooled the judged model offline."""

    bodies: tuple[bytes, ...] = ()
    labels: tuple[int, ...] = ()
    fooling: int = 0


@dataclass(frozen=True)
class Load:
    """Where to, how fast, how long."""

    url: str
    rate: float = 200.0
    """Client requests per second, all clients together."""
    clients: int = 8
    seed: int = 0
    seconds: float | None = None
    requests: int | None = None
    """End after so many seconds or client requests; with neither, when told to."""
    probe_share: float = PROBE_SHARE
    """Probe pairs per client request; 0 means no probes and no attacks."""
    warm: int = 0
    """So many rows are sent to both arms, one after the other, before anything is counted."""
    timeout: float = REQUEST_SECONDS
    """Seconds until an answer counts as lost."""

    def __post_init__(self) -> None:
        found = {name: getattr(self, name) for name in ("rate", "clients", "seconds", "requests", "timeout")}
        wrong = [f"{name} {value}" for name, value in found.items() if value is not None and not 0 < value < math.inf]
        if not 0 <= self.probe_share < math.inf:
            wrong.append(f"probe_share {self.probe_share}")
        if wrong:
            raise RolloutError(f"expected finite numbers above 0, found {', '.join(wrong)}")


def read_rows(path: Path, classes: int) -> Rows:
    """The rows of an NPZ file: `x`, network inputs `float32[N, ...]` or `int64[N, L]`.

    Raises:
        RolloutError: it holds something else.
    """
    return Rows.of(_inputs(path, _arrays(path, ("x",))["x"]), classes)


def read_attacks(path: Path, rows: Path, classes: int) -> Attacks:
    """The adversarial rows of an NPZ file: `x` as in the file `rows`, `y` int64[N], `fooled` bool[N].

    Raises:
        RolloutError: it holds something else.
    """
    arrays, like = _arrays(path, ("x", "y", "fooled")), _arrays(rows, ("x",))["x"]
    x, y, fooled = _inputs(path, arrays["x"]), arrays["y"], arrays["fooled"]
    if x.dtype != like.dtype or x.shape[1:] != like.shape[1:]:
        raise RolloutError(f"{path}: expected x as in {rows}, {_kind(like)}, found {_kind(x)}")
    if y.shape != x.shape[:1] or y.dtype != np.int64 or not ((y >= 0) & (y < classes)).all():
        raise RolloutError(f"{path}: expected y int64[{len(x)}] with classes below {classes}, found {_kind(y)}")
    if fooled.shape != y.shape or fooled.dtype != np.bool_:
        raise RolloutError(f"{path}: expected fooled bool[{len(x)}], found {_kind(fooled)}")
    return Attacks(tuple(body(row) for row in x), tuple(y.tolist()), int(fooled.sum()))


def body(row: NDArray[np.generic]) -> bytes:
    """A V2 request for one row."""
    datatype = _DATATYPES[str(row.dtype)]
    # Nine digits give back the very same float32 with half the bytes of a double.
    values = [float(f"{value:.9g}") for value in row.ravel().tolist()] if datatype == "FP32" else row.ravel().tolist()
    tensor = {"name": "input", "datatype": datatype, "shape": [1, *row.shape], "data": values}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_ROWS_BYTES:
            raise RolloutError(f"{path}: expected at most {MAX_ROWS_BYTES} bytes of rows, found {size}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except KeyError as error:
        raise RolloutError(f"{path}: expected the array {error.args[0].split()[0]}, found none") from None
    except OSError as error:
        raise RolloutError(f"{path}: expected an NPZ file, found none that can be read ({error.strerror})") from None
    except (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise RolloutError(f"{path}: expected an NPZ file of plain arrays, found another: {error}") from None


def _inputs(path: Path, x: NDArray[Any]) -> NDArray[Any]:
    if str(x.dtype) not in _DATATYPES or x.ndim < 2 or not x.size:
        raise RolloutError(f"{path}: expected network inputs x, float32[N, ...] or int64[N, L], found {_kind(x)}")
    if not np.isfinite(x).all():
        raise RolloutError(f"{path}: expected finite network inputs x, found NaN or infinite ones")
    return x


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype}{list(array.shape)}"


# --- what comes back --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: its label, and what it says about who gave it."""

    label: int
    version: str | None


def read_label(data: bytes, classes: int) -> int:
    """The label in the answer to one row.

    Raises:
        ValueError: the answer does not have the shape that was promised.
    """
    return read_reply(data, classes).label


def read_reply(data: bytes, classes: int) -> Reply:
    """The answer to one row, after every number in it was looked at.

    Raises:
        ValueError: the answer does not have the shape that was promised.
    """
    try:
        found = json.loads(data)
        outputs = {output["name"]: output["data"] for output in found["outputs"]}
        label, probabilities = outputs["label"], outputs["probabilities"]
        if len(label) != 1 or len(probabilities) != classes:
            what = f"{len(label)} and {len(probabilities)}"
            raise ValueError(f"expected 1 label and {classes} probabilities, found {what}")
        # A sum with NaN is NaN, wherever it stands; min and max may miss it.
        if not (min(probabilities) >= 0 and max(probabilities) <= 1 + _ROUNDING and not math.isnan(sum(probabilities))):
            raise ValueError("expected probabilities between 0 and 1, found others")
        if type(label[0]) is not int or not 0 <= label[0] < classes:
            raise ValueError(f"expected a label below {classes}, found {label[0]!r}")
        version = found.get("model_version")
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"expected label and probabilities, found another answer: {error!r}") from None
    return Reply(label[0], version if isinstance(version, str) else None)


def _read(outcome: Answer | Failed, classes: int) -> Reply | Failed:
    if isinstance(outcome, Failed):
        return outcome
    if outcome.status != 200:
        return Failed("status", f"{outcome.status}: {outcome.body[:200].decode(errors='replace')}")
    try:
        reply = read_reply(outcome.body, classes)
    except ValueError as error:
        return Failed("shape", str(error))
    arm = header(outcome.head, ARM_HEADER.encode())
    return reply if arm is None else replace(reply, version=arm.decode(errors="replace"))


class Times:
    """A histogram of milliseconds whose edges lie 2 % apart, from 0.01 ms on."""

    _LOWEST, _GROWTH = 0.01, math.log(1.02)

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._max = 0.0

    def add(self, milliseconds: float) -> None:
        """One more."""
        bucket = math.ceil(math.log(max(milliseconds, self._LOWEST) / self._LOWEST) / self._GROWTH)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._max = max(self._max, milliseconds)

    def latency(self) -> Latency:
        """Percentiles of all so far."""
        p50, p95, p99 = (self._percentile(share) for share in (0.5, 0.95, 0.99))
        return Latency(p50, p95, p99, round(self._max, 3))

    def _percentile(self, share: float) -> float:
        """The upper edge of the bucket that holds it, never above the largest value."""
        rank, seen = share * sum(self._counts.values()), 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return round(min(self._LOWEST * math.exp(bucket * self._GROWTH), self._max), 3)
        return 0.0


@dataclass
class _Counts:
    """Everything that was counted so far."""

    classes: int
    attacks: Attacks
    sent: int = 0
    reached: bool = False
    """Whether a connection was ever made."""
    failures: dict[str, int] = field(default_factory=dict)
    first_failure: str | None = None
    answers: dict[str, int] = field(default_factory=dict)
    times: Times = field(default_factory=Times)
    pairs: int = 0
    gained: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    broken: int = 0
    attacked: int = 0
    fooled: int = 0

    def __post_init__(self) -> None:
        self.gained, self.lost = [0] * self.classes, [0] * self.classes

    def client(self, reply: Reply | Failed, seconds: float) -> None:
        """One client request ended."""
        self.sent += 1
        self.times.add(1000 * seconds)
        if isinstance(reply, Failed):
            self.reached |= reply.sent
            self.failures[reply.kind] = self.failures.get(reply.kind, 0) + 1
            self.first_failure = self.first_failure or " ".join(f"{reply.kind}: {reply.reason}".split())[:300]
            return
        self.reached = True
        if reply.version is not None:
            arm = reply.version[:80]
            arm = arm if arm in self.answers or len(self.answers) < MOST_ARMS else "others"
            self.answers[arm] = self.answers.get(arm, 0) + 1

    def pair(self, stable: Reply | Failed, candidate: Reply | Failed) -> None:
        """Both arms were asked the same. Where the champion failed, nothing can be compared."""
        if isinstance(stable, Failed):
            return
        if isinstance(candidate, Failed):
            self.broken += 1
            return
        self.pairs += 1
        if stable.label != candidate.label:
            self.gained[candidate.label] += 1
            self.lost[stable.label] += 1

    def attack(self, reply: Reply | Failed, label: int) -> None:
        """The candidate was asked an adversarial row."""
        if isinstance(reply, Reply):
            self.attacked += 1
            self.fooled += reply.label != label

    def tally(self, *, ended: bool) -> Tally:
        """As of now."""
        return Tally(
            sent=self.sent,
            failed=sum(self.failures.values()),
            failures=dict(self.failures),
            first_failure=self.first_failure,
            answers=dict(self.answers),
            latency_ms=self.times.latency(),
            probes=Probes(
                pairs=self.pairs,
                disagreements=sum(self.gained),
                gained=tuple(self.gained),
                lost=tuple(self.lost),
                broken=self.broken,
                attacks=self.attacked,
                fooled=self.fooled,
            ),
            attack_rows=len(self.attacks.bodies),
            attack_rows_fooling=self.attacks.fooling,
            at=time.monotonic(),
            ended=ended,
        )


# --- the process ------------------------------------------------------------------------------------------------------


def replay(load: Load, rows: Rows, attacks: Attacks = Attacks(), tally: Path | None = None) -> Tally:
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
        raise RolloutError(f"{load.url}: expected a server, nothing could be sent: {found.first_failure}")
    return found


def _keep(path: Path | None, tally: Tally) -> None:
    try:
        if path is not None:
            write_tally(path, tally)
    except OSError as error:
        raise RolloutError(f"{path}: expected to keep the tally, found: {error.strerror}") from None


class _Sender:
    """The clients, the probes and whoever tells about them, in one event loop."""

    def __init__(self, load: Load, rows: Rows, attacks: Attacks, tally: Path | None) -> None:
        self._load, self._rows, self._attacks, self._tally = load, rows, attacks, tally
        self._address = Address.parse(load.url)
        self._requests = [self._address.request(row) for row in rows.bodies]
        self.counts = _Counts(rows.classes, attacks)
        self._begun, self._ended, self._unpaired = 0, False, False
        self._probing, self._idle = 0, list[Caller]()

    async def run(self) -> None:
        """From the first request to the last answer."""
        with _signals({signal.SIGTERM: self._end, signal.SIGINT: self._end, signal.SIGUSR1: self._unpair}):
            await self._warm()
            timer = asyncio.get_running_loop().call_later(self._load.seconds or 0, self._end)
            if self._load.seconds is None:
                timer.cancel()
            async with asyncio.TaskGroup() as tellers:
                telling = tellers.create_task(self._tell())
                await self._send()
                telling.cancel()
            timer.cancel()

    async def _send(self) -> None:
        async with asyncio.TaskGroup() as probes:
            probes.create_task(self._probe())
            async with asyncio.TaskGroup() as clients:
                for number in range(self._load.clients):
                    clients.create_task(self._client(number))
            self._end()  # without clients no probes

    def _end(self) -> None:
        self._ended = True

    def _unpair(self) -> None:
        self._unpaired = True

    async def _until(self, due: float) -> bool:
        """Waits until `due` (monotonic seconds); whether traffic still goes on then."""
        while not self._ended and (left := due - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _STEP_SECONDS))
        return not self._ended

    async def _client(self, number: int) -> None:
        load, classes = self._load, self._rows.classes
        order, caller = _order(load.seed, number, len(self._requests)), Caller(self._address, load.timeout)
        interval = load.clients / load.rate
        due = time.monotonic() + interval * number / load.clients
        while await self._until(due) and self._another():
            began = time.monotonic()
            outcome = await caller.ask(self._requests[next(order)])
            now = time.monotonic()
            self.counts.client(_read(outcome, classes), now - began)
            # A late client does not catch up: a burst would be traffic that nobody sent.
            due = max(due + interval, now)
        caller.close()

    def _another(self) -> bool:
        """Counts a client request as begun, unless that would be too many."""
        if self._load.requests is not None and self._begun >= self._load.requests:
            return False
        self._begun += 1
        return True

    async def _probe(self) -> None:
        load = self._load
        if load.probe_share == 0:
            return
        kinds = 2 if self._attacks.bodies else 1
        interval, due, turns = 1 / (load.rate * load.probe_share * kinds), time.monotonic(), self._turns()
        async with asyncio.TaskGroup() as probes:
            while await self._until(due) and not self._unpaired:
                # Open loop: slow answers do not slow down the probing, until too many are under way.
                if self._probing < MOST_PROBES:
                    probes.create_task(next(turns))
                    self._probing += 1
                due = max(due + interval, time.monotonic() - interval)
        for caller in self._idle:
            caller.close()

    def _turns(self) -> Iterator[Coroutine[Any, Any, None]]:
        """Pairs, and after each of them the next adversarial row."""
        attacks = cycle(zip(self._attacks.bodies, self._attacks.labels, strict=True))
        for number in _order(self._load.seed, self._load.clients, len(self._rows.bodies)):
            yield self._pair(self._rows.bodies[number])
            if self._attacks.bodies:
                yield self._attack(*next(attacks))

    async def _pair(self, row: bytes) -> None:
        stable, candidate = await asyncio.gather(self._ask(row, STABLE), self._ask(row, CANDIDATE))
        self._probing -= 1
        if not self._unpaired:
            self.counts.pair(stable, candidate)

    async def _attack(self, row: bytes, label: int) -> None:
        reply = await self._ask(row, CANDIDATE)
        self._probing -= 1
        if not self._unpaired:
            self.counts.attack(reply, label)

    async def _ask(self, row: bytes, arm: str) -> Reply | Failed:
        """Asks one arm, on a connection that no other probe uses meanwhile."""
        caller = self._idle.pop() if self._idle else Caller(self._address, self._load.timeout)
        outcome = await caller.ask(self._address.request(row, f"{ARM_HEADER}: {arm}"))
        self._idle.append(caller)
        return _read(outcome, self._rows.classes)

    async def _warm(self) -> None:
        for number in range(self._load.warm):
            row = self._rows.bodies[number % len(self._rows.bodies)]
            if not self._ended:
                await asyncio.gather(*(self._ask(row, arm) for arm in (STABLE, CANDIDATE)))

    async def _tell(self) -> None:
        """Keeps the tally fresh for processes and says now and then to people how it goes."""
        began, told, written = time.monotonic(), 0, True
        while True:
            if self._tally is not None:
                written = self._write(self._tally, complain=written)
            tenths = self._tenths(time.monotonic() - began)
            if tenths > told:
                say(line(self.counts.tally(ended=False)))
            told = max(tenths, told)
            await asyncio.sleep(TELL_SECONDS)

    def _tenths(self, seconds: float) -> int:
        """How many lines people should have read by now: one per tenth, or per 10 s when nobody knows the end."""
        load = self._load
        if load.requests is not None:
            return 10 * self.counts.sent // load.requests
        return int(seconds * 10 / load.seconds if load.seconds is not None else seconds / SAY_SECONDS)

    def _write(self, path: Path, *, complain: bool) -> bool:
        """Writes the tally; a full disk must not end the traffic, and whoever reads sees that the tally is old."""
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
    return (
        f"replay: {tally.sent} sent, {tally.failed} failed, p50 {times.p50:g} ms, p99 {times.p99:g} ms, "
        f"{probes.pairs} pairs, {probes.disagreements} disagree"
    )


def _order(seed: int, number: int, rows: int) -> Iterator[int]:
    """The rows that client `number` sends, one after the other, without end."""
    chance = np.random.default_rng([seed, number])
    while True:
        yield from chance.integers(rows, size=1024).tolist()


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
