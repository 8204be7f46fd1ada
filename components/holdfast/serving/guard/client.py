"""What is remembered of one client: two wealths, and its last queries."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from holdfast.serving.guard import wealth
from holdfast.serving.guard.calibration import Calibration, Codes, Samples, Sketches, codes

GENERATION = 128
"""A query is compared with at least so many before it, at most with twice as many."""


@dataclass(frozen=True)
class Query:
    """One row of a client, as the detectors see it."""

    p_far: float
    group: int
    sketch: Sketches
    """int8[D]."""
    digest: int
    """Of the row's bytes: the very same row again is no evidence, and shows its sender nothing new."""
    to_rows: Codes
    """uint8[M]: distances to the calibration rows."""


def queries(calibration: Calibration, samples: Samples, digests: Sequence[int]) -> list[Query]:
    """Rows as the detectors see them; a digest for each."""
    p, sketches = calibration.far.p_values(samples), calibration.sketcher(samples.features)
    groups, to_rows = calibration.groups[samples.labels], codes(sketches, calibration.near.rows)
    return [Query(float(p[i]), int(groups[i]), sketches[i], digest, to_rows[i]) for i, digest in enumerate(digests)]


@dataclass
class Generation:
    """Up to `GENERATION` queries in the order in which they came."""

    sketches: Sketches
    """int8[GENERATION, D]; those from `count` on are not queries."""
    digests: NDArray[np.int64]
    nearest: Codes
    """uint8[M]: how near each calibration row comes to one of the queries."""
    count: int = 0

    @classmethod
    def empty(cls, calibration: Calibration) -> Self:
        """Without queries."""
        m, d = calibration.near.rows.shape
        return cls(np.zeros((GENERATION, d), np.int8), np.zeros(GENERATION, np.int64), np.full(m, 255, np.uint8))

    @property
    def asked(self) -> Sketches:
        """int8[count, D]."""
        return self.sketches[: self.count]

    def holds(self, digest: int) -> bool:
        """Whether this very row is one of them."""
        return bool((self.digests[: self.count] == digest).any())

    def add(self, query: Query) -> None:
        """One more query."""
        self.sketches[self.count], self.digests[self.count] = query.sketch, query.digest
        np.minimum(self.nearest, query.to_rows, out=self.nearest)
        self.count += 1


@dataclass
class Client:
    """What the martingales have made of one client's queries so far."""

    far: wealth.Logs = field(default_factory=wealth.start)
    near: wealth.Logs = field(default_factory=wealth.start)
    seen: tuple[int, int] = (0, 0)
    """p-values of far and of near."""
    older: Generation | None = None
    newer: Generation | None = None

    @property
    def log_wealths(self) -> tuple[float, float]:
        """Log wealth of far and of near."""
        far, near = (np.int64(seen) for seen in self.seen)
        return float(wealth.log_wealth(self.far, far)), float(wealth.log_wealth(self.near, near))

    @property
    def log_wealth(self) -> float:
        """Log of the mean of both: above log(1 / alpha) with probability at most alpha while it is a user's."""
        return float(np.logaddexp(*self.log_wealths) - np.log(2))

    def observe(self, query: Query, calibration: Calibration) -> None:
        """Bets on one more query."""
        far, near = self.seen
        self.far = wealth.bet(self.far, np.float64(query.p_far), np.int64(far))
        p_near = self._p_near(query, calibration)
        if p_near is not None:
            self.near = wealth.bet(self.near, np.float64(p_near), np.int64(near))
        self.seen = far + 1, near + (p_near is not None)

    def _p_near(self, query: Query, calibration: Calibration) -> float | None:
        """None: it is the first, or the very same row as one before."""
        if self.newer is None:
            self.newer = Generation.empty(calibration)
        parts = [part for part in (self.older, self.newer) if part is not None and part.count]
        if any(part.holds(query.digest) for part in parts):
            return None
        p = None
        if parts:
            code = min(int(codes(query.sketch[None], part.asked).min()) for part in parts)
            nearest = np.minimum.reduce([part.nearest for part in parts])
            p = calibration.near.p_value(query.group, code, nearest)
        self._remember(query, calibration)
        return p

    def _remember(self, query: Query, calibration: Calibration) -> None:
        assert self.newer is not None
        if self.newer.count == GENERATION:
            self.older, self.newer = self.newer, Generation.empty(calibration)
        self.newer.add(query)
