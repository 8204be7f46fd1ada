"""Stage one on two tables: every column of either, its kind, its effect, and whether it has drifted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import ColumnDrift
from holdfast.data.drift.columns import TESTS, ColumnKind, count, ks_distance, shift, total_variation
from holdfast.workload.schema import DriftConfig

if TYPE_CHECKING:
    import pandas as pd


def column_drifts(
    reference: "pd.DataFrame", current: "pd.DataFrame", p_values: Mapping[str, float], config: DriftConfig
) -> tuple[ColumnDrift, ...]:
    """One result per column, from the p-values of those that both sides have with one kind (`shared_kinds`)."""
    kinds, threshold = shared_kinds(reference, current), column_threshold(reference, current, config)
    found = []
    for name in _names(reference, current):
        if name not in kinds:
            found.append(_not_comparable(name, threshold))
            continue
        p, effect = p_values[name], _effect(reference, current, name, kinds[name])
        drifted = p < threshold and effect >= config.min_effect
        test = TESTS[kinds[name]]
        found.append(
            ColumnDrift(column=name, test=test, statistic=p, threshold=threshold, effect=effect, drifted=drifted)
        )
    return tuple(found)


def column_threshold(reference: "pd.DataFrame", current: "pd.DataFrame", config: DriftConfig) -> float:
    """The level of each column's test, so that all together keep `config.alpha`."""
    return config.alpha / len(_names(reference, current))


def shared_kinds(reference: "pd.DataFrame", current: "pd.DataFrame") -> dict[str, ColumnKind]:
    """The kinds of the columns that can be compared, in the order of `current`."""
    names = _names(reference, current)
    return {name: kind for name in names if (kind := _shared_kind(name, reference, current)) is not None}


def cells(table: "pd.DataFrame", name: str, kind: ColumnKind) -> NDArray[Any]:
    """A column as float64[N], or as str[N]."""
    values = table[name].to_numpy()
    return np.asarray(values, dtype=np.float64 if kind == "number" else str)


def _names(reference: "pd.DataFrame", current: "pd.DataFrame") -> list[str]:
    return [*current.columns, *(name for name in reference.columns if name not in current.columns)]


def _shared_kind(name: str, reference: "pd.DataFrame", current: "pd.DataFrame") -> ColumnKind | None:
    """None when one side lacks the column, or has numbers where the other has categories."""
    if name not in reference.columns or name not in current.columns:
        return None
    one, two = (("number" if table[name].dtype.kind in "biuf" else "category") for table in (reference, current))
    if one != two:
        return None
    return "number" if one == "number" else "category"


def _not_comparable(name: str, threshold: float) -> ColumnDrift:
    """A column that is gone, new or of another kind has moved as far as it can."""
    return ColumnDrift(
        column=name, test="on one side only", statistic=0.0, threshold=threshold, effect=1.0, drifted=True
    )


def _effect(reference: "pd.DataFrame", current: "pd.DataFrame", name: str, kind: ColumnKind) -> float:
    one, two = cells(reference, name, kind), cells(current, name, kind)
    return shift(ks_distance(one, two)) if kind == "number" else total_variation(count(one, two))
