"""Summaries of single columns."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.coded import Values, encode
from holdfast.data.snapshot.columns import Described, describe
from holdfast.data.snapshot.inspection.cells import cells_of, delivered, missing_of, typed
from holdfast.data.snapshot.inspection.summary import ColumnSummary
from holdfast.data.snapshot.rows import Part
from holdfast.data.snapshot.uninformative import uninformative
from holdfast.errors import InputError
from holdfast.modality.cells import spell
from holdfast.workload.schema import DataConfig

_SHOWN = 3
_FEW_VALUES = range(3, 21)
_ROWS_PER_VALUE = 10
_CODE_NAMES = ("zip", "zipcode", "postcode", "postal_code", "plz", "code", "branch", "sku", "icd")
_SENTENCE = 40
"""Characters of an average cell from which a column is a message."""


def lenient(data: DataConfig) -> DataConfig:
    """The same section, with nothing refused that a key could settle."""
    return data.model_copy(update={"missing": "indicator", "identifiers": "keep", "constants": "keep"})


def leniently(parts: Sequence[Part], column: str, data: DataConfig) -> Described | None:
    """The column as `describe` would have it if missing cells did not matter; None where that is not enough."""
    try:
        return describe(parts, column, lenient(data))
    except InputError:
        return None


def summarize(parts: Sequence[Part], column: str, described: Described | None, data: DataConfig) -> ColumnSummary:
    """What is in a column, over all parts."""
    cells, missing = delivered(parts, column), np.concatenate(missing_of(parts, column, described))
    values = (cells if described is None else np.concatenate(typed(described)))[~missing]
    numbers = values.dtype.kind == "f"
    texts: Sequence[Any] = () if numbers else spell(values).tolist()
    return ColumnSummary(
        name=column,
        kind=_kind(described, texts),
        distinct=len(np.unique(values)) if numbers else len(set(texts)),
        missing=int(missing.sum()),
        written_as=tuple(sorted({str(cell).strip() for cell in cells[missing] if cell is not None} - {""})),
        lowest=f"{values.min():.6g}" if numbers and len(values) else "",
        highest=f"{values.max():.6g}" if numbers and len(values) else "",
        examples=tuple(value for value, _ in Counter(texts).most_common(_SHOWN)),
        note="" if described is None else _note(described, values, data),
    )


def row_values(parts: Sequence[Part], column: str, described: Described | None) -> list[Values]:
    """The values by which rows are compared: the typed ones, else the cells' spelling."""
    if described is None:
        return [encode(spell(cells_of(part, column))) for part in parts]
    return list(described.values)


def _kind(described: Described | None, texts: Sequence[str]) -> str:
    if described is None:
        return "text" if _is_prose(texts) else "unclear"
    column = described.column
    if column.datetime:
        return "date"
    if column.kind == "number":
        return "whole number" if column.integer else "number"
    return "text" if _is_prose(texts) else column.kind


def _is_prose(texts: Sequence[str]) -> bool:
    return len(texts) > 0 and sum(map(len, texts)) / len(texts) >= _SENTENCE and any(" " in text for text in texts)


def _note(described: Described, values: NDArray[Any], data: DataConfig) -> str:
    reason = uninformative(described, data)
    if reason is not None:
        return reason
    column = described.column
    if column.kind != "number" or column.datetime or column.name in data.columns_as:
        return ""
    named = column.name.lower() in _CODE_NAMES
    return "codes?" if column.integer and (named or _has_few_values(values)) else ""


def _has_few_values(values: NDArray[np.float64]) -> bool:
    distinct = len(np.unique(values))
    return distinct in _FEW_VALUES and len(values) >= _ROWS_PER_VALUE * distinct
