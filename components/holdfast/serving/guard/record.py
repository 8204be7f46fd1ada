"""What outlives a client's place in memory: the wealths whole, and the last queries."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from holdfast.serving.guard import wealth
from holdfast.serving.guard.calibration import Calibration, Sketches, codes
from holdfast.serving.guard.client import GENERATION, Client, Generation

KEPT = 32
"""Queries that are remembered of a client who is not in memory."""
Digests = NDArray[np.int64]


@dataclass(frozen=True)
class LastQueries:
    """The last queries of a client, oldest first."""

    sketches: Sketches
    """int8[n, D], n at most `KEPT`."""
    digests: Digests
    """int64[n]."""

    @classmethod
    def of(cls, client: Client) -> "LastQueries":
        """Those of a client in memory."""
        parts = [part for part in (client.older, client.newer) if part is not None and part.count]
        if not parts:
            return NONE
        sketches = np.concatenate([part.asked for part in parts])[-KEPT:]
        return cls(sketches, np.concatenate([part.digests[: part.count] for part in parts])[-KEPT:])


NONE = LastQueries(np.zeros((0, 0), np.int8), np.zeros(0, np.int64))


@dataclass
class Record:
    """One client."""

    far: wealth.Logs = field(default_factory=wealth.start)
    near: wealth.Logs = field(default_factory=wealth.start)
    seen: tuple[int, int] = (0, 0)
    """p-values of far and of near."""
    asked: int = 0
    """Rows since `since`."""
    since: float = 0.0
    """When the budget was full, in seconds since 1970."""
    rows: int = 0
    """All that it ever asked."""
    alarmed_by: str = ""
    """The detector that raised the alarm; empty: none did."""
    last: LastQueries = NONE

    def client(self, calibration: Calibration) -> Client:
        """The client in memory again."""
        found = Client(self.far, self.near, self.seen)
        count = len(self.last.digests)
        if count:
            found.newer = _generation(self.last, calibration, min(count, GENERATION))
        return found


class RecordStore(Protocol):
    """Where records are kept; what was put is there after the process was killed."""

    def get(self, name: str) -> Record | None:
        """The record of a client; None: it is new."""

    def put(self, name: str, record: Record, now: float) -> None:
        """Keeps all of a record but its last queries."""

    def put_last(self, name: str, last: LastQueries) -> None:
        """Keeps the last queries of a client who has a record."""

    def alarmed(self) -> int:
        """How many clients are."""


def _generation(last: LastQueries, calibration: Calibration, count: int) -> Generation:
    made = Generation.empty(calibration)
    made.sketches[:count], made.digests[:count] = last.sketches, last.digests
    made.nearest[:] = codes(calibration.near.rows, last.sketches).min(1)
    made.count = count
    return made
