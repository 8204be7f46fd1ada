"""Missing cells that the workload asks to fill from the training rows: `data.missing: indicator`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column
from holdfast.data.snapshot.coded import Values, filled
from holdfast.data.snapshot.contract import TypedDelivery
from holdfast.data.snapshot.rows import DeliveredRows, TableRows
from holdfast.errors import InputError


def fill_missing(
    typed: TypedDelivery, train: DeliveredRows, test: DeliveredRows
) -> tuple[TypedDelivery, DeliveredRows, DeliveredRows]:
    """Both parts without missing cells: the mean or the most frequent value of the training rows takes their place.

    Raises:
        InputError: a column has no value in the training rows.
    """
    indicators = {column.indicates: column.name for column in typed.columns if column.indicates is not None}
    if not indicators or not isinstance(train, TableRows) or not isinstance(test, TableRows):
        return typed, train, test
    columns = tuple(
        column.model_copy(update=_fill(column, train.column(column.name), _missing(train, indicators[column.name])))
        if column.name in indicators
        else column
        for column in typed.columns
    )
    fills = {indicators[column.name]: column for column in columns if column.name in indicators}
    done = _filled(train, fills)
    # One delivered file is one table, of which both parts chose their rows.
    other = replace(test, columns=done.columns) if test.columns is train.columns else _filled(test, fills)
    return replace(typed, columns=columns), done, other


def _missing(rows: TableRows, indicator: str) -> NDArray[np.bool_]:
    return np.asarray(np.asarray(rows.column(indicator)) == 1)


def _fill(column: Column, values: Values, missing: NDArray[np.bool_]) -> dict[str, Any]:
    """What changes in the column: its fill, and it is whole only where that is."""
    present = values[~missing]
    if len(present) == 0:
        raise InputError(f"column {column.name!r}: expected a value in some training row, found none (data.drop)")
    if column.kind == "number":
        mean = float(np.asarray(present).mean())
        return {"fill": mean, "integer": column.integer and mean.is_integer()}
    counts = Counter(present.tolist())
    return {"fill": min(counts, key=lambda value: (-counts[value], value))}


def _filled(rows: TableRows, fills: Mapping[str, Column]) -> TableRows:
    columns = dict(rows.columns)
    for indicator, column in fills.items():
        columns[column.name] = filled(columns[column.name], np.asarray(columns[indicator]) == 1, column.fill)
    return replace(rows, columns=columns)
