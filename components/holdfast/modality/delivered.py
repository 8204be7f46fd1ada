"""A table's rows as people have them, brought into the columns that the model was trained on, or refused by name.

A program that reads a file again gives the same values other types than the snapshot step did: bools, whole numbers in
a column of decimals, numbers as text, spaces around text. Those are the same rows. A value that is missing, or is no
number where one is expected, is refused: a model would answer something for it.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdfast.artifacts.documents import Column
from holdfast.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_BOOLEANS = {"true": 1.0, "false": 0.0}


def as_delivered(frame: "pd.DataFrame", columns: Sequence[Column]) -> "pd.DataFrame":
    """The columns of the model in its order, numbers as float64 and categories as text; other columns are left out.

    Raises:
        InputError: a column that is missing or twice there, or a value that does not fit its column.
    """
    import pandas as pd

    made = {column.name: _column(_pick(frame, column.name), column) for column in columns}
    return pd.DataFrame(made, index=frame.index)


def _pick(frame: "pd.DataFrame", name: str) -> "pd.Series[Any]":
    """The column of that name, with or without spaces around it."""
    found = [place for place, given in enumerate(frame.columns) if str(given).strip() == name]
    if len(found) != 1:
        names = [str(given) for given in frame.columns]
        raise InputError(f"table: expected one column {name!r}, found {len(found)} in {names}")
    return frame.iloc[:, found[0]]


def _column(values: "pd.Series[Any]", column: Column) -> "list[float] | list[str]":
    missing = values.isna().to_numpy()
    if missing.any():
        row = int(missing.argmax())
        raise InputError(f"table: expected a value in every row of column {column.name!r}, found none in row {row}")
    if column.kind == "number":
        return [_number(value, column.name) for value in values.tolist()]
    return [_category(value, column) for value in values.tolist()]


def _number(value: object, name: str) -> float:
    try:
        text = str(value).strip().lower() if isinstance(value, str) else value
        number = _BOOLEANS[text] if text in _BOOLEANS else float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"table: expected numbers in column {name!r}, found {value!r}") from None
    if not math.isfinite(number):
        raise InputError(f"table: expected finite numbers in column {name!r}, found {value!r}")
    return number


def _category(value: object, column: Column) -> str:
    """The value as text; of what a bool or a number can look like as text, the one that is a category."""
    text = str(value).strip()
    if not text:
        raise InputError(f"table: expected a value in every row of column {column.name!r}, found an empty text")
    if text in column.categories or isinstance(value, str):
        return text
    forms = [text.lower()]
    if isinstance(value, float) and value.is_integer():
        forms.append(str(int(value)))
    return next((form for form in forms if form in column.categories), text)
