"""Numbers and dates, from cells: what a text means is decided here and nowhere else."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class Parsed:
    """Cells as numbers, float64[rows]; NaN where there is none."""

    values: NDArray[np.float64]
    numeric: NDArray[np.bool_]
    missing: NDArray[np.bool_]


def parse_numbers(cells: NDArray[Any], decimal: DecimalMark = ".") -> Parsed:
    """The numbers in `cells`; bools are 1 and 0 where nothing else is there."""
    missing = missing_cells(cells)
    if cells.dtype.kind in "fiu":
        return Parsed(cells.astype(np.float64), ~missing, missing)
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
    cells = part.cells[column]
    missing = missing_cells(cells)
    if part.kinds.get(column) == "datetime":
        return Parsed(cells.astype(np.float64), ~missing, missing)
    known: dict[object, float] = {}
    values = np.array([np.nan if gone else _date(known, cell) for cell, gone in zip(cells, missing, strict=True)])
    strange = np.isnan(values) & ~missing
    if strange.any():
        raise InputError(
            f"{part.name}: column {column!r}: expected ISO 8601 dates such as 2026-01-31T08:30:00Z (data.columns_as), "
            f"found {quoted(dict.fromkeys(cells[strange]))} in {rows_of(strange, part.lines)}"
        )
    return Parsed(values, ~missing, missing)


def check_numbers(parsed: Parsed, part: Part, column: str, *, stated: bool) -> None:
    """Every cell that is not missing is a finite number, and `stated` or surely no code.

    Raises:
        InputError: otherwise; the message names the key of the workload that decides.
    """
    where, raw = f"{part.name}: column {column!r}", part.cells[column]
    junk = ~parsed.numeric & ~parsed.missing
    if junk.any():
        hint = "" if stated else f"; if the values are codes: data.columns_as: {{{column}: category}}"
        found = f"{quoted(dict.fromkeys(raw[junk]))} in {rows_of(junk, part.lines)}"
        raise InputError(f"{where}: expected numbers, found {found}{hint}")
    infinite = np.isinf(parsed.values)
    if infinite.any():
        found = f"infinity or overflow in {rows_of(infinite, part.lines)}"
        raise InputError(f"{where}: expected finite numbers, found {found}")
    if not stated:
        _refuse_codes(raw, part, column)
    _refuse_rounding(parsed, raw, part, column)


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


def _date(known: dict[object, float], cell: object) -> float:
    if cell not in known:
        try:
            known[cell] = seconds(cell)
        except (ValueError, OverflowError):
            known[cell] = np.nan
    return known[cell]


def _refuse_codes(raw: NDArray[Any], part: Part, column: str) -> None:
    """Texts that read as numbers and are written as no program writes numbers: 01234, and 12e4 among whole ones."""
    if raw.dtype.kind != "O":
        return
    texts = np.array([str(cell).strip().lower() if isinstance(cell, str) else "" for cell in raw], dtype=object)
    codes = np.array([_LEADING_ZERO.fullmatch(text) is not None for text in texts], dtype=bool)
    if not codes.any() and all(not text or text.isdigit() or _CODE.fullmatch(text) for text in dict.fromkeys(texts)):
        codes = np.array([_CODE.fullmatch(text) is not None for text in texts], dtype=bool)
    if codes.any():
        found = f"{quoted(dict.fromkeys(raw[codes]))} in {rows_of(codes, part.lines)}"
        raise InputError(
            f"{part.name}: column {column!r}: expected numbers or codes, found {found}, which could be either; "
            f"data.columns_as: {{{column}: category}}, or number"
        )


def _refuse_rounding(parsed: Parsed, raw: NDArray[Any], part: Part, column: str) -> None:
    """Whole numbers that float64 would turn into others: two ids would become one."""
    if raw.dtype.kind == "f":
        return
    large = np.flatnonzero(np.abs(np.nan_to_num(parsed.values)) >= _EXACT)
    changed = np.zeros(len(raw), dtype=bool)
    changed[large] = _changed(raw[large], parsed.values[large])
    if changed.any():
        found = f"{quoted(dict.fromkeys(raw[changed]))} in {rows_of(changed, part.lines)}"
        raise InputError(
            f"{part.name}: column {column!r}: expected whole numbers that a float64 holds exactly, found {found}; "
            f"if they are names of something: data.columns_as: {{{column}: category}}, or data.drop"
        )


def _changed(raw: Iterable[Any], values: NDArray[np.float64]) -> list[bool]:
    found = []
    for cell, value in zip(raw, values, strict=True):
        text = str(cell).strip().removeprefix("+")
        found.append(text.removeprefix("-").isdigit() and int(text) != int(value))
    return found
