"""Who may ask, and what is done about the answer: one guard in front of one model.

The clock and the store come from outside.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.serving.guard import wealth
from holdfast.serving.guard.calibration import Calibration, Samples
from holdfast.serving.guard.client import Client, Query, queries
from holdfast.serving.guard.record import LastQueries, Record, RecordStore

Mode = Literal["observe", "flag", "degrade", "refuse"]
DetectorName = Literal["far", "near", "pooled", "budget"]
IN_MEMORY = 4_000
"""Clients whose last queries are at hand; about 15 kB each."""
NEW = 50
"""A client is new while it asked at most so many rows: those of all new clients are pooled."""
POOL = ""
"""The name under which the pool of new clients is kept; no client has it."""


@dataclass(frozen=True)
class GuardLimits:
    """What is asked of clients."""

    mode: Mode = "observe"
    alpha: float = 1e-4
    budget: int | None = None
    """Most rows in `seconds`."""
    seconds: float = 30 * 86_400.0


@dataclass(frozen=True)
class Refusal:
    """Why a request has no answer."""

    detector: DetectorName
    reason: str
    retry_after: int | None = None
    """Seconds until it may come again; None: no time helps."""

    @property
    def status(self) -> int:
        """Of HTTP: 429 for a budget that time fills, 422 for queries that are not a user's."""
        return 422 if self.retry_after is None else 429


@dataclass(frozen=True)
class Alarm:
    """What an operator hears, once for each client."""

    client: str
    detector: DetectorName
    rows: int
    """That the client has asked."""
    log_far: float
    """Log wealths."""
    log_near: float


@dataclass(frozen=True)
class GuardAnswer:
    """What the guard makes of one answered request."""

    flagged: tuple[DetectorName, ...]
    """What is held against the client, first what came first."""
    action: Literal["none", "observe", "flag", "degrade", "refuse"]
    """What is done about this answer."""
    alarm: Alarm | None = None
    """One that was raised by this request."""


class Guard:
    """All clients of one model."""

    def __init__(
        self, calibration: Calibration, limits: GuardLimits, store: RecordStore, *, in_memory: int = IN_MEMORY
    ) -> None:
        self.calibration, self.limits = calibration, limits
        self._store, self._most, self._lock = store, in_memory, threading.Lock()
        self._clients: OrderedDict[str, tuple[Client, Record]] = OrderedDict()
        self._pool = store.get(POOL) or Record()
        self.alarmed = store.alarmed()
        """How many clients are alarmed; the pool counts as one."""

    def admit(self, name: str, rows: int, now: float) -> Refusal | None:
        """Counts the rows of a request against the client's budget, before the model is asked; None: go on."""
        with self._lock:
            _, record = self._find(name)
            if now - record.since >= self.limits.seconds:
                record.asked, record.since = 0, now
            refusal = self._refusal(record, rows, now) if self.limits.mode == "refuse" else None
            if refusal is None:
                record.asked, record.rows = record.asked + rows, record.rows + rows
                self._store.put(name, record, now)
            return refusal

    def judge(self, name: str, samples: Samples, digests: Sequence[int], now: float) -> GuardAnswer:
        """Bets on the rows of a request that `admit` let through, and decides about its answer."""
        with self._lock:
            client, record = self._find(name)
            found = queries(self.calibration, samples, digests)
            alarm = None if record.alarmed_by else self._observe(name, client, record, found, now)
            self._renew_pool()
            pooled = self._observe_pool(record, found, now)
            self._store.put(name, record, now)
            if alarm is not None:
                self._store.put_last(name, LastQueries.of(client))
            flagged = self._flagged(record)
            return GuardAnswer(flagged, self._action(flagged), alarm or pooled)

    def close(self) -> None:
        """Keeps what is only in memory: the last queries of clients."""
        with self._lock:
            for name, (client, _) in self._clients.items():
                self._store.put_last(name, LastQueries.of(client))
            self._clients.clear()

    def _find(self, name: str) -> tuple[Client, Record]:
        """The client in memory; one who is alarmed is looked up again, for a person may have released it."""
        held = self._clients.get(name)
        if held is not None and held[1].alarmed_by and self._store.get(name) is None:
            held, self.alarmed = None, self._store.alarmed()
        if held is None:
            record = self._store.get(name) or Record()
            held = record.client(self.calibration), record
        self._clients[name] = held
        self._clients.move_to_end(name)
        while len(self._clients) > self._most:
            gone, (client, _) = self._clients.popitem(last=False)
            self._store.put_last(gone, LastQueries.of(client))
        return held

    def _refusal(self, record: Record, rows: int, now: float) -> Refusal | None:
        if record.alarmed_by:
            return Refusal(_name(record.alarmed_by), "these queries are not those of a user of this model")
        budget = self.limits.budget
        if budget is None or record.asked + rows <= budget:
            return None
        left = max(1, math.ceil(record.since + self.limits.seconds - now))
        return Refusal("budget", f"expected at most {budget} rows in {self.limits.seconds:.0f} s, found more", left)

    def _observe(self, name: str, client: Client, record: Record, found: list[Query], now: float) -> Alarm | None:
        limit = -math.log(self.limits.alpha)
        for query in found:
            client.observe(query, self.calibration)
            if client.log_wealth >= limit:
                break
        record.far, record.near, record.seen = client.far, client.near, client.seen
        far, near = client.log_wealths
        if client.log_wealth < limit:
            return None
        record.alarmed_by, self.alarmed = ("far" if far >= near else "near"), self.alarmed + 1
        return Alarm(name, _name(record.alarmed_by), record.rows, far, near)

    def _renew_pool(self) -> None:
        """Begins again where a person took the pool's alarm back."""
        if self._pool.alarmed_by and self._store.get(POOL) is None:
            self._pool, self.alarmed = Record(), self._store.alarmed()

    def _observe_pool(self, record: Record, found: list[Query], now: float) -> Alarm | None:
        """The first rows of clients who are not alarmed, all as if of one client; only how far away they are."""
        pool = self._pool
        if record.alarmed_by or record.rows - len(found) >= NEW or pool.alarmed_by:
            return None
        for query in found[: NEW - (record.rows - len(found))]:
            seen, _ = pool.seen
            pool.far = wealth.bet(pool.far, np.float64(query.p_far), np.int64(seen))
            pool.seen, pool.rows = (seen + 1, 0), pool.rows + 1
        value = float(wealth.log_wealth(pool.far, np.int64(pool.seen[0])))
        if value >= -math.log(self.limits.alpha):
            pool.alarmed_by, self.alarmed = "pooled", self.alarmed + 1
        self._store.put(POOL, pool, now)
        return Alarm(POOL, "pooled", pool.rows, value, 0.0) if pool.alarmed_by else None

    def _flagged(self, record: Record) -> tuple[DetectorName, ...]:
        budget = self.limits.budget
        found: list[DetectorName] = [_name(record.alarmed_by)] if record.alarmed_by else []
        if budget is not None and record.asked > budget:
            found.append("budget")
        if self._pool.alarmed_by and record.rows <= NEW:
            found.append("pooled")
        return tuple(found)

    def _action(self, flagged: Sequence[DetectorName]) -> Literal["none", "observe", "flag", "degrade", "refuse"]:
        """The mode; what is held against all new clients together is marked at most."""
        if not flagged:
            return "none"
        if self.limits.mode != "observe" and set(flagged) == {"pooled"}:
            return "flag"
        return self.limits.mode


def _name(text: str) -> DetectorName:
    names: dict[str, DetectorName] = {"far": "far", "near": "near", "pooled": "pooled"}
    return names.get(text, "far")
