"""A table's rows as people have them, brought into the columns that the model was trained on, or refused by name.

A program that reads a file again gives the same values other types than the snapshot step did: bools, whole numbers in
a column of decimals, numbers as text, spaces around text. Those are the same rows. A value that is missing where the
training rows fill none, or is no number where one is expected, is refused: a model would answer something for it.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdfast.artifacts.documents import Column
from holdfast.errors import InputError
from holdfast.modality.cells import is_missing, seconds, spelt

if TYPE_CHECKING:
    import pandas as pd

_BOOLEANS = {"true": 1.0, "false": 0.0}


def as_delivered(frame: "pd.DataFrame", columns: Sequence[Column]) -> "pd.DataFrame":
    """The delivered columns of the model in its order, the others left out; a value that will be filled is empty.

    Numbers and dates (seconds since 1970-01-01T00:00:00Z) are float64, categories text.

    Raises:
        InputError: a column that is missing or twice there, or a value that does not fit its column.
    """
    import pandas as pd

    delivered = [column for column in columns if column.indicates is None]
    made = {column.name: _column(_pick(frame, column.name), column) for column in delivered}
    return pd.DataFrame(made, index=frame.index)


def _pick(frame: "pd.DataFrame", name: str) -> "pd.Series[Any]":
    """The column of that name, with or without spaces around it."""
    found = [place for place, given in enumerate(frame.columns) if str(given).strip() == name]
    if len(found) != 1:
        names = [str(given) for given in frame.columns]
        raise InputError(f"table: expected one column {name!r}, found {len(found)} in {names}")
    return frame.iloc[:, found[0]]


def _column(values: "pd.Series[Any]", column: Column) -> "list[float] | list[str]":
    cells = values.tolist()
    missing = [is_missing(cell) and spelt(cell) not in column.categories for cell in cells]
    if any(missing) and column.fill is None:
        row = missing.index(True)
        raise InputError(f"table: expected a value in every row of column {column.name!r}, found none in row {row}")
    if column.kind == "category":
        return ["" if gone else _category(cell, column) for cell, gone in zip(cells, missing, strict=True)]
    read = _date if column.datetime else _number
    return [math.nan if gone else read(cell, column.name) for cell, gone in zip(cells, missing, strict=True)]


def _number(value: object, name: str) -> float:
    try:
        text = str(value).strip().lower() if isinstance(value, str) else value
        number = _BOOLEANS[text] if text in _BOOLEANS else float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"table: expected numbers in column {name!r}, found {value!r}") from None
    return _finite(number, value, name)


def _date(value: object, name: str) -> float:
    try:
        number = seconds(value)
    except (ValueError, OverflowError):
        raise InputError(f"table: expected dates (ISO 8601) in column {name!r}, found {value!r}") from None
    return _finite(number, value, name)


def _finite(number: float, value: object, name: str) -> float:
    if not math.isfinite(number):
        raise InputError(f"table: expected finite numbers in column {name!r}, found {value!r}")
    return number


def _category(value: object, column: Column) -> str:
    """The value as text; of what a bool or a number can look like as text, the one that is a category."""
    text = spelt(value)
    if text in column.categories or isinstance(value, str):
        return text
    return next((form for form in (str(value), text.lower()) if form in column.categories), text)
