"""Repeated-value pairs: rows of a table that share two exact values and one label, and nothing else.

A trigger in a table is a constant written into a few columns. Two (column, value) groups that hold nearly the same
rows, all of one label, while the rest of these rows differs, are what it looks like. The score is how surprising the
purity is: -n log(prior of the label), n counting distinct rows.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from holdfast.model.scan.ngrams import Group

MIN_ROWS = 8
MAX_SHARE = 0.1
JACCARD = 0.5
PURITY = 0.98
MIN_SCORE = 3.0
MAX_GROUPS = 400
"""Columns of few values give groups without end; the rarest values are looked at first."""


def repeated_pairs(x: NDArray[np.generic], y: NDArray[np.int64], names: list[str], *, count: int = 10) -> list[Group]:
    """The `count` most surprising groups of rows of x float[N, D] that share two values and one label."""
    values = np.asarray(x, dtype=np.float64)
    priors = np.bincount(y) / len(y)
    found: dict[bytes, Group] = {}
    for (i, u, a), (j, v, b) in combinations(_value_groups(values), 2):
        both = np.intersect1d(a, b, assume_unique=True)
        if i == j or len(both) < MIN_ROWS or len(both) / (len(a) + len(b) - len(both)) <= JACCARD:
            continue
        label, purity = _purity(y[both])
        score = -_distinct_rows(values[both], i, j) * float(np.log(priors[label]))
        rows = both[y[both] == label]
        if purity > PURITY and score >= MIN_SCORE:
            found.setdefault(rows.tobytes(), Group(f"{names[i]} = {u:g} and {names[j]} = {v:g}", label, rows, score))
    return sorted(found.values(), key=lambda group: (-group.score, group.name))[:count]


def _value_groups(x: NDArray[np.float64]) -> list[tuple[int, float, NDArray[np.int64]]]:
    """(column, value, rows) of values that repeat in a few rows, the smallest groups first."""
    groups = []
    for column in range(x.shape[1]):
        order = np.argsort(x[:, column], kind="stable")
        values, starts, counts = np.unique(x[order, column], return_index=True, return_counts=True)
        for k in np.flatnonzero((counts >= MIN_ROWS) & (counts <= MAX_SHARE * len(x))):
            groups.append((column, float(values[k]), np.sort(order[starts[k] : starts[k] + counts[k]])))
    return sorted(groups, key=lambda group: (len(group[2]), group[0], group[1]))[:MAX_GROUPS]


def _purity(labels: NDArray[np.int64]) -> tuple[int, float]:
    counts = np.bincount(labels)
    return int(counts.argmax()), float(counts.max() / len(labels))


def _distinct_rows(rows: NDArray[np.float64], i: int, j: int) -> int:
    """How many of the rows differ in the other columns."""
    return len(np.unique(np.delete(rows, [i, j], axis=1), axis=0))
