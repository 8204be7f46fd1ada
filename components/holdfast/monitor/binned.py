"""Stage one: windows of rows as counts in bins, and how far each window's columns are from those of all windows.

Edges are quantiles of rows that belong to no window (those that the model was trained on), with open ends, so that one
value of 1e6 is one row in the last bin; missing values and categories that training did not know have bins of their
own. Counts add up: a window of several servers is the sum of theirs, and no row is kept.

The distance of a window's column is its population stability index against all windows, in units of what chance alone
gives, z = PSI / (1/n + 1/N) (about chi-square with bins - 1 degrees of freedom when nothing changes). A column that
wobbles harmlessly from window to window has a large z in every window, so each z is divided by the column's median
over all windows. A window's two scores are the largest and the mean of these: the first finds one bad column, the
second a change that is spread over many. Every step treats all windows alike, as `holdfast.monitor.ranks` asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

BINS = 10
MOST_CATEGORIES = 30
_SMALLEST_SCALE = 1.0
"""A column that never changes has a median of 0."""

BinCounts = NDArray[np.int64]
"""Rows per bin, all columns one after the other: int64[bins]."""


@dataclass(frozen=True)
class Bins:
    """How one column is counted: a number by edges, a category by name."""

    column: str
    edges: tuple[float, ...] = ()
    """Rising; a value is in bin i when i of them are at most it."""
    categories: tuple[str, ...] = ()
    """For a category; what is not among them is counted as unknown."""

    @classmethod
    def of_numbers(cls, column: str, values: NDArray[np.float64]) -> Self:
        """At most 10 bins with about the same number of the finite values float64[n]."""
        known = values[np.isfinite(values)]
        inner = np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]) if len(known) else np.zeros(0)
        return cls(column, edges=tuple(np.unique(inner).tolist()))

    @classmethod
    def of_categories(cls, column: str, values: NDArray[Any]) -> Self:
        """A bin for each of the 30 most frequent values."""
        names, counts = np.unique(values.astype(str), return_counts=True)
        kept = names[np.argsort(-counts, kind="stable")[:MOST_CATEGORIES]]
        return cls(column, categories=tuple(sorted(kept.tolist())))

    @property
    def size(self) -> int:
        """Bins, the one for missing or unknown values included."""
        return len(self.categories) + 1 if self.categories else len(self.edges) + 2

    def places(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """The bin of each value, int64[n] in [0, size); the last is for what is missing or unknown."""
        if not self.categories:
            numbers = values.astype(np.float64)
            found = np.searchsorted(np.asarray(self.edges), numbers, side="right")
            return np.where(np.isnan(numbers), self.size - 1, found).astype(np.int64)
        names = values.astype(str)
        found = np.searchsorted(np.asarray(self.categories), names)
        at = np.minimum(found, len(self.categories) - 1)
        return np.where(np.asarray(self.categories)[at] == names, at, self.size - 1).astype(np.int64)


def count(bins: Sequence[Bins], columns: Sequence[NDArray[Any]]) -> BinCounts:
    """Counts of one window, int64[sum of sizes]: the columns as arrays of its rows, in the order of `bins`."""
    return np.concatenate([np.bincount(b.places(c), minlength=b.size) for b, c in zip(bins, columns, strict=True)])


class BinnedWindows:
    """The windows so far, and their scores; windows are added, never taken away.

    With `season` s, the windows t, t + s, t + 2 s, ... are compared with each other only: 24 for hours with a daily
    cycle. Their scores are ranked among those of all windows.
    """

    def __init__(self, sizes: Sequence[int], season: int = 1) -> None:
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._columns = np.repeat(np.arange(len(sizes)), sizes)
        self._sizes = np.asarray(sizes)
        self._season = season
        self._seen = 0
        self._changed: set[int] = set()
        self._rows = np.zeros(0)
        self._counts, self._shares, self._logs = (np.zeros((0, int(sum(sizes)))) for _ in range(3))
        self._entropies = self._distances = np.zeros((0, len(sizes)))

    def __len__(self) -> int:
        return self._seen

    def add(self, counts: BinCounts) -> None:
        """Joins a window with at least one row."""
        rows = float(counts[: self._sizes[0]].sum())
        shares = (counts + 0.5) / (rows + self._sizes[self._columns] / 2)
        self._grow()
        t, logs = self._seen, np.log(shares)
        self._rows[t], self._counts[t], self._shares[t], self._logs[t] = rows, counts, shares, logs
        self._entropies[t] = self._by_column(shares * logs)
        self._seen += 1
        self._changed.add(t % self._season)

    @property
    def distances(self) -> NDArray[np.float64]:
        """z of every column of every window, float64[windows, columns], at least 0."""
        while self._changed:
            self._measure(self._changed.pop())
        return self._distances[: self._seen]

    @property
    def scores(self) -> NDArray[np.float64]:
        """The largest and the mean distance of each window in units of the columns' medians, float64[windows, 2]."""
        scaled = self.distances / np.maximum(np.median(self.distances, axis=0), _SMALLEST_SCALE)
        return np.stack([scaled.max(axis=1), scaled.mean(axis=1)], axis=1)

    def _measure(self, phase: int) -> None:
        """Distances of the windows of one phase from their sum; those of other phases stay as they are."""
        own = slice(phase, self._seen, self._season)
        total, rows = self._counts[own].sum(axis=0), self._rows[own].sum()
        q = (total + 0.5) / (rows + self._sizes[self._columns] / 2)
        log_q = np.log(q)
        cross = self._by_column(self._shares[own] * log_q + self._logs[own] * q)
        psi = self._entropies[own] - cross + self._by_column(q * log_q)
        self._distances[own] = np.maximum(psi, 0) / (1 / self._rows[own] + 1 / rows)[:, None]

    def _by_column(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.add.reduceat(values, self._starts, axis=-1)

    def _grow(self) -> None:
        if self._seen < len(self._rows):
            return
        more = max(64, self._seen)
        for name in ("_rows", "_counts", "_shares", "_logs", "_entropies", "_distances"):
            held = getattr(self, name)
            setattr(self, name, np.concatenate([held, np.zeros((more, *held.shape[1:]))]))
