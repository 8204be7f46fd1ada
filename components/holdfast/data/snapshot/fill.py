"""Missing cells that the workload asks to fill from the training rows: `data.missing: indicator`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column
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
    rows = train.columns
    columns = tuple(
        column.model_copy(update=_fill(column, rows[column.name], rows[indicators[column.name]] == 1))
        if column.name in indicators
        else column
        for column in typed.columns
    )
    fills = {indicators[column.name]: column for column in columns if column.name in indicators}
    return replace(typed, columns=columns), _filled(train, fills), _filled(test, fills)


def _fill(column: Column, values: NDArray[Any], missing: NDArray[np.bool_]) -> dict[str, Any]:
    """What changes in the column: its fill, and it is whole only where that is."""
    present = values[~missing]
    if len(present) == 0:
        raise InputError(f"column {column.name!r}: expected a value in some training row, found none (data.drop)")
    if column.kind == "number":
        mean = float(present.mean())
        return {"fill": mean, "integer": column.integer and mean.is_integer()}
    counts = Counter(present.tolist())
    return {"fill": min(counts, key=lambda value: (-counts[value], value))}


def _filled(rows: TableRows, fills: Mapping[str, Column]) -> TableRows:
    columns = dict(rows.columns)
    for indicator, column in fills.items():
        values = columns[column.name].copy()
        values[columns[indicator] == 1] = column.fill
        columns[column.name] = values
    return replace(rows, columns=columns)
