"""Repeated-value pairs: rows of a table that share two exact values and one label, and nothing else.

A trigger in a table is a constant written into a few columns. Two (column, value) groups that hold nearly the same
rows, all of one label, while the rest of these rows differs, are what it looks like. The score is how surprising the
purity is: -n log(prior of the label), n counting distinct rows.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from holdfast.model.scan.ngrams import Group

MIN_ROWS = 8
MAX_SHARE = 0.1
MAX_CLASS_SHARE = 0.5
"""Rows that are more than this share of their class are the class: a model without them does not know it."""
JACCARD = 0.5
PURITY = 0.98
MIN_SCORE = 3.0
MAX_ROWS = 500_000
"""Rows among which pairs are looked for."""
MAX_PAIRS = 100_000
"""Columns that repeat one another give pairs without end; the largest are looked at first."""


Pair = tuple[tuple[int, float], tuple[int, float]]
"""(column, value) twice."""


def repeated_pairs(x: NDArray[np.generic], y: NDArray[np.int64], names: list[str], *, count: int = 10) -> list[Group]:
    """The `count` most surprising groups of rows of x float[N, D] that share two values and one label.

    Of more than `MAX_ROWS` rows they are looked for in as many, drawn at random, and then in all.
    """
    if len(x) <= MAX_ROWS:
        return [group for group, _ in _pairs(x, y, names, count)]
    some = np.sort(np.random.default_rng(0).choice(len(x), MAX_ROWS, replace=False))
    return [_in_all(group, pair, x, y) for group, pair in _pairs(x[some], y[some], names, count)]


def _in_all(group: Group, pair: Pair, x: NDArray[np.generic], y: NDArray[np.int64]) -> Group:
    """The group with every row that has the two values and the label."""
    (i, u), (j, v) = pair
    # float32 as the rows are: the value came from one of them.
    rows = np.flatnonzero((x[:, i] == u) & (x[:, j] == v) & (y == group.label))
    return replace(group, rows=rows)


def _pairs(x: NDArray[np.generic], y: NDArray[np.int64], names: list[str], count: int) -> list[tuple[Group, Pair]]:
    values = np.asarray(x, dtype=np.float64)
    priors = np.bincount(y) / len(y)
    repeated = _value_groups(values)
    found: dict[bytes, tuple[Group, Pair]] = {}
    for first, second in _overlapping(repeated, len(values)):
        (i, u, a), (j, v, b) = repeated[first], repeated[second]
        both = np.intersect1d(a, b, assume_unique=True)
        label, purity = _purity(y[both])
        rows = both[y[both] == label]
        if purity <= PURITY or rows.tobytes() in found or len(rows) > MAX_CLASS_SHARE * priors[label] * len(y):
            continue
        distinct = _distinct_rows(values[both], i, j)
        score = -distinct * float(np.log(priors[label]))
        if score >= MIN_SCORE:
            name = f"{names[i]} = {u:g} and {names[j]} = {v:g}"
            found[rows.tobytes()] = Group(name, label, rows, score, distinct), ((i, u), (j, v))
    return sorted(found.values(), key=lambda one: (-one[0].score, one[0].name))[:count]


def _value_groups(x: NDArray[np.float64]) -> list[tuple[int, float, NDArray[np.int64]]]:
    """(column, value, rows) of values that repeat in a few rows."""
    groups = []
    for column in range(x.shape[1]):
        order = np.argsort(x[:, column], kind="stable")
        values, starts, counts = np.unique(x[order, column], return_index=True, return_counts=True)
        for k in np.flatnonzero((counts >= MIN_ROWS) & (counts <= MAX_SHARE * len(x))):
            groups.append((column, float(values[k]), np.sort(order[starts[k] : starts[k] + counts[k]])))
    return groups


def _overlapping(groups: list[tuple[int, float, NDArray[np.int64]]], n: int) -> list[tuple[int, int]]:
    """Pairs of groups that hold nearly the same rows, by one sparse product; the largest pairs first."""
    from scipy.sparse import csr_matrix, triu

    if not groups:
        return []
    sizes = np.array([len(rows) for _, _, rows in groups])
    places = np.concatenate([rows for _, _, rows in groups])
    holds = csr_matrix((np.ones(len(places), dtype=np.int64), places, np.append(0, np.cumsum(sizes))), (len(groups), n))
    both = triu(holds @ holds.T, k=1).tocoo()
    near = (both.data >= MIN_ROWS) & (both.data > JACCARD * (sizes[both.row] + sizes[both.col] - both.data))
    largest = np.flatnonzero(near)[np.argsort(-both.data[near], kind="stable")][:MAX_PAIRS]
    return [(int(both.row[k]), int(both.col[k])) for k in largest]


def _purity(labels: NDArray[np.int64]) -> tuple[int, float]:
    counts = np.bincount(labels)
    return int(counts.argmax()), float(counts.max() / len(labels))


def _distinct_rows(rows: NDArray[np.float64], i: int, j: int) -> int:
    """How many of the rows differ in the other columns."""
    return len(np.unique(np.delete(rows, [i, j], axis=1), axis=0))
