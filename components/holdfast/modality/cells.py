"""Cells of tables: which of them are missing and how a value is spelt, the same in every format and at the server."""

import unicodedata
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING = frozenset(
    {
        "", "na", "n/a", "nan", "nat", "null", "nil", "none", "<na>", "<null>", "#n/a", "#n/a n/a", "#na", "-nan",
        "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "\\n",
    }
)  # fmt: skip
"""Texts, stripped and in lower case, that mean that there is no value: those that pandas, R, SQL and Excel write."""
_TRUTH = {"true", "false"}


def is_missing(value: object) -> bool:
    """Whether a cell holds no value: None, NaN, NA, NaT, or a text among `MISSING`."""
    return str(value).strip().lower() in MISSING


def missing_cells(cells: NDArray[Any]) -> NDArray[np.bool_]:
    """Where `cells` hold no value, bool[rows]."""
    if cells.dtype.kind in "biu":
        return np.zeros(len(cells), dtype=bool)
    if cells.dtype.kind == "f":
        return np.asarray(np.isnan(cells), dtype=bool)
    values = cells.tolist()
    missing = {value for value in set(values) if is_missing(value)}
    if not missing:
        return np.zeros(len(cells), dtype=bool)
    return np.fromiter((value in missing for value in values), dtype=bool, count=len(values))


def spelt(value: object) -> str:
    """The one spelling of a value: composed Unicode (NFC) without outer spaces, `true`, a whole number as `7`."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value).strip()
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating | Decimal) and np.isfinite(float(value)) and value == int(value):
        return str(int(value))
    return str(value)


def spell(cells: Iterable[Any]) -> NDArray[np.object_]:
    """The spelling of each cell, object[rows] of `str`; texts that are all bools are one kind of bool."""
    known: dict[object, str] = {}
    found = [known[value] if value in known else known.setdefault(value, spelt(value)) for value in _exact(cells)]
    if found and {text.lower() for text in known.values()} <= _TRUTH:
        found = [text.lower() for text in found]
    return np.array(found, dtype=object)


def _exact(cells: Iterable[Any]) -> Iterable[Any]:
    """Values that are equal only when they are spelt alike: in a dictionary True is 1 and 0.0 is 0."""
    values = cells.tolist() if isinstance(cells, np.ndarray) else list(cells)
    return values if len({type(value) for value in values}) <= 1 else [spelt(value) for value in values]


def numbers(cells: NDArray[Any]) -> NDArray[np.float64]:
    """Cells as numbers, float64[rows]: bools and the texts of bools are 1 and 0, missing cells are NaN.

    Raises:
        ValueError, TypeError: a cell is no number.
    """
    if cells.dtype.kind in "biuf":
        return cells.astype(np.float64)
    return np.array([_number(value) for value in cells], dtype=np.float64)


def _number(value: Any) -> float:
    if is_missing(value):
        return np.nan
    text = value.strip().lower() if isinstance(value, str) else value
    return float(text == "true") if text in ("true", "false") else float(text)


def seconds(value: object) -> float:
    """A date as seconds since 1970-01-01T00:00:00Z; a date without a time zone is UTC.

    Takes `datetime`, `date`, ISO 8601 text, and a number of such seconds.

    Raises:
        ValueError: it is none of them.
    """
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
