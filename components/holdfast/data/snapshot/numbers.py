"""Numbers and dates, from cells: what a text means is decided here and nowhere else."""

import re
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.coded import Coded, Parsed, Values, coded, constant
from holdfast.data.snapshot.listing import quoted, rows_of
from holdfast.data.snapshot.rows import Part
from holdfast.errors import InputError
from holdfast.modality.cells import missing_cells, seconds

DecimalMark = Literal[".", ","]
_BOOLEANS = {"true": 1.0, "false": 0.0}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?")
"""Numbers in lower case. Python's own idea of a number is wider: it takes 1_000, which in a table is a code."""
_COMMA = re.compile(r"[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]*)(,[0-9]+)(e[+-]?[0-9]+)?")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(\.[0-9]{3})+(,[0-9]+)?")
_LEADING_ZERO = re.compile(r"[+-]?0[0-9]+")
_CODE = re.compile(r"[0-9]+e[0-9]+")
_EXACT = 2.0**53
"""Whole numbers beyond it are not all float64."""


def numbers_of(part: Part, column: str) -> Parsed:
    """The numbers in a column, as the reader understood them or from its cells."""
    known = part.numbers.get(column)
    return parse_numbers(part.column(column), part.decimal) if known is None else known


def parse_numbers(cells: Values, decimal: DecimalMark = ".") -> Parsed:
    """The numbers in `cells`; bools are 1 and 0 where nothing else is there."""
    if isinstance(cells, Coded):
        return _spread(cells, parse_numbers(cells.values, decimal))
    missing = missing_cells(cells)
    if cells.dtype.kind in "fiu":
        return _typed(cells.astype(np.float64, copy=False), missing)
    texts = [str(value).strip().lower() for value in cells]
    if not missing.all() and all(gone or text in _BOOLEANS for text, gone in zip(texts, missing, strict=True)):
        values = np.array([_BOOLEANS.get(text, np.nan) for text in texts])
        return Parsed(values, ~missing, missing)
    if decimal == ",":
        texts = [with_point(text) for text in texts]
    values = np.array(_to_numbers(["nan" if gone else text for text, gone in zip(texts, missing, strict=True)]))
    return Parsed(values, ~np.isnan(values), missing)


def parse_dates(part: Part, column: str) -> Parsed:
    """Dates as seconds since 1970-01-01T00:00:00Z: `holdfast.modality.cells.seconds`.

    Raises:
        InputError: a cell is no date.
    """
    cells = part.column(column)
    if part.kinds.get(column) == "datetime" and not isinstance(cells, Coded):
        return parse_numbers(cells)
    dates = coded(cells)
    parsed = _spread(dates, _parse_dates(dates.values))
    strange = np.isnan(parsed.values) & ~parsed.missing
    if strange.any():
        raise InputError(
            f"{part.name}: column {column!r}: expected ISO 8601 dates such as 2026-01-31T08:30:00Z (data.columns_as), "
            f"found {quoted(dict.fromkeys(dates[strange].tolist()))} in {rows_of(strange, part.lines)}"
        )
    return parsed


def check_numbers(parsed: Parsed, part: Part, column: str, *, stated: bool) -> None:
    """Every cell that is not missing is a finite number, and `stated` or surely no code.

    Raises:
        InputError: otherwise; the message names the key of the workload that decides.
    """
    where = f"{part.name}: column {column!r}"
    junk = ~parsed.numeric & ~parsed.missing
    if junk.any():
        hint = "" if stated else f"; if the values are codes: data.columns_as: {{{column}: category}}"
        raise InputError(f"{where}: expected numbers, found {_quoted_rows(part, column, junk)}{hint}")
    infinite = np.isinf(parsed.values)
    if infinite.any():
        found = f"infinity or overflow in {rows_of(infinite, part.lines)}"
        raise InputError(f"{where}: expected finite numbers, found {found}")
    if column in part.numbers:
        return
    if not stated:
        _refuse_codes(part, column)
    _refuse_rounding(parsed, part, column)


def with_point(text: str) -> str:
    """A number with decimal comma, as one with a point; other texts as they are."""
    if _COMMA.fullmatch(text) or _THOUSANDS.fullmatch(text):
        return text.replace(".", "").replace(",", ".")
    return text


def has_comma(text: str) -> bool:
    """Whether a text is a number with decimal comma."""
    return _COMMA.fullmatch(text) is not None


def is_number(text: str) -> bool:
    """Whether a text in lower case is a number with decimal point, or a whole one."""
    return _NUMBER.fullmatch(text) is not None


def _to_numbers(texts: list[str]) -> list[float]:
    """NaN for what is no number; what is too large is infinite."""
    try:
        if not any("_" in text for text in texts):
            return [float(text) for text in texts]
    except ValueError:
        pass
    return [float(text) if _NUMBER.fullmatch(text) else np.nan for text in texts]


def _typed(values: NDArray[np.float64], missing: NDArray[np.bool_]) -> Parsed:
    if missing.any():
        return Parsed(values, ~missing, missing)
    return Parsed(values, constant(True, len(values)), constant(False, len(values)))


def _spread(cells: Coded, of_values: Parsed) -> Parsed:
    return Parsed(*(cells.spread(one) for one in (of_values.values, of_values.numeric, of_values.missing)))


def _parse_dates(cells: NDArray[Any]) -> Parsed:
    missing = missing_cells(cells)
    values = np.array([np.nan if gone else _date(cell) for cell, gone in zip(cells, missing, strict=True)])
    return Parsed(values, ~missing, missing)


def _date(cell: object) -> float:
    try:
        return seconds(cell)
    except (ValueError, OverflowError):
        return np.nan


def _quoted_rows(part: Part, column: str, rows: NDArray[np.bool_]) -> str:
    return f"{quoted(dict.fromkeys(part.cells[column][rows].tolist()))} in {rows_of(rows, part.lines)}"


def could_be_code(text: str) -> bool:
    """Whether a text in lower case reads as a number and is written as no program writes numbers: 01234, or 12e4."""
    return _LEADING_ZERO.fullmatch(text) is not None or _CODE.fullmatch(text) is not None


def changed(cell: object) -> bool:
    """Whether a cell is a whole number that float64 would turn into another."""
    text = str(cell).strip().removeprefix("+")
    if not text.removeprefix("-").isdigit():
        return False
    value = float(text)
    return abs(value) >= _EXACT and np.isfinite(value) and int(text) != int(value)


def _refuse_codes(part: Part, column: str) -> None:
    """Texts that read as numbers and are written as no program writes numbers: 01234, and 12e4 among whole ones."""
    cells = part.column(column)
    if not isinstance(cells, Coded):
        return
    codes = cells.spread(_codes(cells.values))
    if codes.any():
        raise InputError(
            f"{part.name}: column {column!r}: expected numbers or codes, found {_quoted_rows(part, column, codes)}, "
            f"which could be either; data.columns_as: {{{column}: category}}, or number"
        )


def _codes(values: NDArray[Any]) -> NDArray[np.bool_]:
    texts = [cell.strip().lower() if isinstance(cell, str) else "" for cell in values]
    codes = [_LEADING_ZERO.fullmatch(text) is not None for text in texts]
    if not any(codes) and all(not text or text.isdigit() or _CODE.fullmatch(text) for text in texts):
        codes = [_CODE.fullmatch(text) is not None for text in texts]
    return np.array(codes, dtype=bool)


def _refuse_rounding(parsed: Parsed, part: Part, column: str) -> None:
    """Whole numbers that float64 would turn into others: two ids would become one."""
    cells = part.column(column)
    if not isinstance(cells, Coded) and cells.dtype.kind == "f":
        return
    rounded = _rounded(cells, parsed)
    if rounded.any():
        raise InputError(
            f"{part.name}: column {column!r}: expected whole numbers that a float64 holds exactly, found "
            f"{_quoted_rows(part, column, rounded)}; "
            f"if they are names of something: data.columns_as: {{{column}: category}}, or data.drop"
        )


def _rounded(cells: Values, parsed: Parsed) -> NDArray[np.bool_]:
    if isinstance(cells, Coded):
        return cells.spread(np.array([changed(cell) for cell in cells.values], dtype=bool))
    found = np.zeros(len(cells), dtype=bool)
    large = np.flatnonzero(np.abs(np.nan_to_num(parsed.values)) >= _EXACT)
    found[large] = [changed(cell) for cell in cells[large]]
    return found
