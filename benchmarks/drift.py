"""Drift of clean windows and of shifted ones: do alarms keep the stated rate, and is half a standard deviation found?

A table's rows are drawn into two windows, one in place of the champion's rows, one of the delivery's. The p-values of
numbers are SciPy's `ks_2samp`, which Evidently's "ks" calls; those of categories are the step's own test. The step's
own code judges each column. Every window of a shift has one number moved by half its standard deviation.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from benchmarks.scenes import Bench
from benchmarks.table import Row, at_least, at_most, shown
from holdfast.artifacts.documents import ColumnDrift
from holdfast.data.drift.columns import ColumnKind, count, g_test
from holdfast.data.drift.stage_one import cells, column_drifts, shared_kinds
from holdfast.workload.schema import DriftConfig

WINDOWS, ROWS, SHIFT = 200, 5_000, 0.5
CONFIG = DriftConfig()


def run(bench: Bench) -> list[Row]:
    """Alarms and finds of each table."""
    return [row for name, read in TABLES.items() for row in _rows(name, read(bench))]


def _rows(name: str, table: pd.DataFrame) -> list[Row]:
    clean = [_windows(table, seed) for seed in range(WINDOWS)]
    judged = [_judged(*sides) for sides in clean]
    alarms = [any(column.drifted for column in columns) for columns in judged]
    by_p = [any(column.statistic < column.threshold for column in columns) for columns in judged]
    found = [_found(*sides, seed) for seed, sides in enumerate(clean)]
    how = f"{WINDOWS} windows of {len(clean[0][0]):,} and {len(clean[0][1]):,} rows, {table.shape[1]} columns"
    rate = f"{how}; stated: at most {CONFIG.alpha:.0%}"
    return [
        at_most(f"drift, {name}: clean windows with a drifted column", float(np.mean(alarms)), 0.03, rate),
        shown(
            f"drift, {name}: clean windows with a column below its threshold, any effect", float(np.mean(by_p)), rate
        ),
        at_least(f"drift, {name}: {SHIFT} sd in one column found", float(np.mean(found)), 0.95, how),
    ]


def _windows(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables without a common row."""
    rows = np.random.default_rng([seed, 1]).permutation(len(table))
    many = min(ROWS, len(table) // 2)
    one, two = (table.iloc[rows[start : start + many]].reset_index(drop=True) for start in (0, many))
    return one, two


def _found(reference: pd.DataFrame, current: pd.DataFrame, seed: int) -> bool:
    """Whether a number that moved is reported as drifted, and no other column is."""
    numbers = [name for name, kind in shared_kinds(reference, current).items() if kind == "number"]
    column = np.random.default_rng([seed, 2]).choice(numbers)
    moved = current.assign(**{column: current[column] + SHIFT * reference[column].std()})
    return [one.column for one in _judged(reference, moved) if one.drifted] == [column]


def _judged(reference: pd.DataFrame, current: pd.DataFrame) -> tuple[ColumnDrift, ...]:
    kinds = shared_kinds(reference, current)
    return column_drifts(reference, current, _p_values(reference, current, kinds), CONFIG)


def _p_values(reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, ColumnKind]) -> dict[str, float]:
    tests: dict[ColumnKind, Callable[..., float]] = {
        "number": lambda one, two: float(ks_2samp(one, two).pvalue),
        "category": lambda one, two: g_test(count(one, two)),
    }
    return {
        name: tests[kind](*(cells(table, name, kind) for table in (reference, current))) for name, kind in kinds.items()
    }


def _credit(bench: Bench) -> pd.DataFrame:
    table = pd.read_csv(bench.file("credit_default.csv")).drop(columns="ID")
    return table.astype(dict.fromkeys(("X2", "X3", "X4", "Y"), str))


def _card(bench: Bench) -> pd.DataFrame:
    return pd.read_csv(bench.file("creditcard_ulb_sample.csv")).astype({"Class": str})


def _spambase(bench: Bench) -> pd.DataFrame:
    table = pd.read_csv(bench.file("spambase.csv"), header=None).rename(columns=str)
    return table.astype({table.columns[-1]: str})


TABLES: Mapping[str, Callable[[Bench], pd.DataFrame]] = {
    "credit default": _credit,
    "card sample": _card,
    "spambase": _spambase,
}
