"""Many clients of the guard at once: the arithmetic of `holdfast.serving.guard.client`, an array for each step.

Users draw rows from a pool again and again. Distances between all rows of the pool are known beforehand, so a step of a
thousand clients costs milliseconds. A test holds it to the product's own clients, query by query.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.serving.guard import wealth
from holdfast.serving.guard.calibration import Calibration, Samples, codes
from holdfast.serving.guard.client import GENERATION

Bytes = NDArray[np.uint8]
_FARTHEST = 255


@dataclass(frozen=True)
class Pool:
    """Rows that users send, P of them."""

    p_far: NDArray[np.float64]
    groups: NDArray[np.int64]
    to_rows: Bytes
    """uint8[P, M]."""
    to_each_other: Bytes
    """uint8[P, P]."""

    @classmethod
    def of(cls, calibration: Calibration, samples: Samples) -> "Pool":
        """The rows of `samples`."""
        sketches, part = calibration.sketcher(samples.features), 1000
        starts = range(0, len(samples), part)
        each = np.concatenate([codes(sketches[i : i + part], sketches) for i in starts])
        rows = np.concatenate([codes(sketches[i : i + part], calibration.near.rows) for i in starts])
        far = [calibration.far.p_values(samples.take(np.arange(i, min(i + part, len(samples))))) for i in starts]
        return cls(np.concatenate(far), calibration.groups[samples.labels], rows, each)


class Clients:
    """C clients, each with its own stakes and its own last queries."""

    def __init__(self, calibration: Calibration, pool: Pool, count: int) -> None:
        self.near, self.pool = calibration.near, pool
        shape, rows = (count, len(pool.p_far)), (count, pool.to_rows.shape[1])
        self.far_logs, self.near_logs = wealth.start((count,)), wealth.start((count,))
        self.seen_far, self.seen_near = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.added = np.zeros(count, np.int64)
        self.newer, self.older = (np.full(shape, _FARTHEST, np.uint8) for _ in range(2))
        self.newer_rows, self.older_rows = (np.full(rows, _FARTHEST, np.uint8) for _ in range(2))
        self.held = np.zeros(shape, np.uint8)
        """2: among the newer queries, 1: among the older, 0: not remembered."""
        self._group_of = np.repeat(np.arange(len(calibration.near.tails)), np.diff(calibration.near.starts))
        longest = max(len(tails) for tails in calibration.near.tails)
        self._tails = np.stack([np.pad(t, (0, longest - len(t)), constant_values=1.0) for t in calibration.near.tails])

    def ask(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log wealths after each client asked one row of the pool, int64[C]."""
        self.far_logs = wealth.bet(self.far_logs, self.pool.p_far[rows], self.seen_far)
        self.seen_far = self.seen_far + 1
        fresh = self.held[np.arange(len(rows)), rows] == 0
        judged = np.flatnonzero(fresh & (self.added > 0))
        if len(judged):
            p = self._p_near(judged, rows[judged])
            self.near_logs[judged] = wealth.bet(self.near_logs[judged], p, self.seen_near[judged])
            self.seen_near[judged] += 1
        self._remember(np.flatnonzero(fresh), rows)
        both = wealth.log_wealth(self.far_logs, self.seen_far), wealth.log_wealth(self.near_logs, self.seen_near)
        found: NDArray[np.float64] = np.logaddexp(*both) - np.log(2)
        return found

    def _p_near(self, who: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        code = np.minimum(self.newer[who, rows], self.older[who, rows])
        nearest, groups = np.minimum(self.newer_rows[who], self.older_rows[who]), self.pool.groups[rows]
        reached = (nearest <= code[:, None]) & (self._group_of == groups[:, None])
        found: NDArray[np.float64] = self._tails[groups, np.count_nonzero(reached, axis=1)]
        return found

    def _remember(self, who: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        full = who[(self.added[who] > 0) & (self.added[who] % GENERATION == 0)]
        self.older[full], self.older_rows[full] = self.newer[full], self.newer_rows[full]
        self.newer[full], self.newer_rows[full] = _FARTHEST, _FARTHEST
        self.held[full] //= 2
        asked = rows[who]
        self.newer[who] = np.minimum(self.newer[who], self.pool.to_each_other[asked])
        self.newer_rows[who] = np.minimum(self.newer_rows[who], self.pool.to_rows[asked])
        self.held[who, asked] = 2
        self.added[who] += 1


def quiet(
    calibration: Calibration, pool: Pool, *, clients: int, queries: int, alpha: float, seed: int
) -> tuple[int, float]:
    """How many users were ever alarmed, and the largest log wealth that one ever had."""
    chance, crowd = np.random.default_rng(seed), Clients(calibration, pool, clients)
    highest = np.zeros(clients)
    for _ in range(queries):
        highest = np.maximum(highest, crowd.ask(chance.integers(len(pool.p_far), size=clients)))
    return int((highest >= -np.log(alpha)).sum()), float(highest.max())
