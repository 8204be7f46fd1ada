"""The types of columns, from what the workload and the file say of them, else from their cells.

A column is a number when all its cells are; it is a category when most of them are not. In between there is a
mistake in the data, or a code of which some values are digits: the workload states which (`data.columns_as`).
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column
from holdfast.data.snapshot.coded import Coded, Parsed, Values, coded
from holdfast.data.snapshot.listing import quoted, rows_of, written_as
from holdfast.data.snapshot.numbers import check_numbers, numbers_of, parse_dates
from holdfast.data.snapshot.rows import Part
from holdfast.errors import InputError, LimitError
from holdfast.modality.cells import missing_cells, seconds, spell, spelt
from holdfast.modality.precision import check_precision
from holdfast.workload.schema import DataConfig

MAX_CATEGORIES = 1000
MIN_CATEGORY_ROWS = 100
OWN_VALUE_SHARE = 0.9
_FIRST = 1000


@dataclass(frozen=True)
class Described:
    """A column's description and, per part, its values and where these are missing; a missing number is NaN."""

    column: Column
    values: Sequence[Values]
    missing: list[NDArray[np.bool_]]

    @property
    def indicated(self) -> bool:
        """Whether cells are missing that nothing fills yet."""
        return self.column.fill is None and any(bool(one.any()) for one in self.missing)


def pick(part: Part, column: str, role: str) -> Values:
    """The cells of `column`: of a number type, or each text once.

    Raises:
        InputError: there is none; the message suggests the name meant.
    """
    check_known(part, column, role)
    return part.column(column)


def check_known(part: Part, column: str, role: str) -> None:
    """Refuses what `pick` refuses, and reads no cells."""
    if column not in part.cells:
        close = difflib.get_close_matches(column, part.cells, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"found {quoted(part.cells)}"
        raise InputError(f"{part.name}: expected a {role} column {column!r}; {hint}")


def describe(parts: Sequence[Part], column: str, data: DataConfig) -> Described:
    """What `column` is, and its values: float64[rows], or texts.

    The kind is the workload's (`data.columns_as`), else the file's own, else it is decided over all parts; `parts[0]`
    is the training rows, or all rows, and gives the categories.

    Raises:
        InputError: missing values that nothing fills, non-finite values, text among numbers, or numbers that float32
            cannot distinguish.
        LimitError: too many categories.
    """
    for part in parts:
        check_known(part, column, "data")
    stated = data.columns_as.get(column)
    kind = stated or next((part.kinds[column] for part in parts if column in part.kinds), None)
    if kind == "category":
        return _category(parts, column, data)
    if kind == "datetime":
        return _datetime(parts, column, data)
    parsed = [numbers_of(part, column) for part in parts]
    usable = sum(int((~one.missing).sum()) for one in parsed)
    numbers = sum(int(one.numeric.sum()) for one in parsed)
    if kind == "number" or usable == 0 or numbers * 2 >= usable:
        return _number(parts, column, data, parsed)
    return _category(parts, column, data)


def repeats_little(values: Coded) -> bool:
    """Whether, of at least 100 values of a category column, nine in ten have a row of their own: an identifier."""
    return len(values) >= MIN_CATEGORY_ROWS and len(values.used()) >= OWN_VALUE_SHARE * len(values)


def known(values: Coded) -> tuple[str, ...]:
    """The values of a category column in the training rows, sorted."""
    return tuple(sorted(values.used()))


def _where(part: Part, column: str) -> str:
    return f"{part.name}: column {column!r}"


def _number(parts: Sequence[Part], column: str, data: DataConfig, parsed: list[Parsed]) -> Described:
    fill = _number_fill(column, data)
    for part, one in zip(parts, parsed, strict=True):
        check_numbers(one, part, column, stated=column in data.columns_as)
        _refuse_missing(one.missing, part, column, data, nothing="NaN or nothing")
    _check_precision(parts[0], column, parsed[0])
    values = [_filled(one.values, one.missing, fill) for one in parsed]
    whole = all(map(_whole, values))
    described = Column(name=column, kind="number", integer=whole, immutable=column in data.immutable, fill=fill)
    return Described(described, values, [one.missing for one in parsed])


def _datetime(parts: Sequence[Part], column: str, data: DataConfig) -> Described:
    stated = data.fill_of(column)
    try:
        fill = None if stated is None else seconds(stated)
    except ValueError:
        raise InputError(f"data.missing.{column}: expected an ISO 8601 date, found {stated!r}") from None
    parsed = [parse_dates(part, column) for part in parts]
    for part, one in zip(parts, parsed, strict=True):
        _refuse_missing(one.missing, part, column, data, nothing="nothing")
    _check_precision(parts[0], column, parsed[0])
    values = [_filled(one.values, one.missing, fill) for one in parsed]
    described = Column(name=column, kind="number", datetime=True, immutable=column in data.immutable, fill=fill)
    return Described(described, values, [one.missing for one in parsed])


def _check_precision(part: Part, column: str, parsed: Parsed) -> None:
    check_precision(parsed.values[~parsed.missing], _where(part, column))


def _category(parts: Sequence[Part], column: str, data: DataConfig) -> Described:
    stated = data.fill_of(column)
    fill = None if stated is None else spelt(stated)
    cells = [coded(part.column(column)) for part in parts]
    missing = [one.spread(missing_cells(one.values)) for one in cells]
    for part, gone in zip(parts, missing, strict=True):
        if part.kinds.get(column) == "datetime":
            raise InputError(f"{_where(part, column)}: expected texts or numbers (data.columns_as), found dates")
        _refuse_missing(gone, part, column, data, nothing="nothing")
    names = [one.renamed(spell(one.values)) for one in cells]
    values = [_named(one, gone, fill) for one, gone in zip(names, missing, strict=True)]
    if data.identifiers == "keep" or not repeats_little(values[0][~missing[0]]):
        for part, one in zip(parts, values, strict=True):
            _few_enough(one, _where(part, column))
    immutable = column in data.immutable
    described = Column(name=column, kind="category", categories=known(values[0]), immutable=immutable, fill=fill)
    return Described(described, values, missing)


def _few_enough(values: Coded, where: str) -> None:
    if (found := len(values.used())) > MAX_CATEGORIES:
        raise LimitError(
            f"{where}: expected at most {MAX_CATEGORIES} different values, found {found}; name the column in data.drop"
        )


def _number_fill(column: str, data: DataConfig) -> float | None:
    stated = data.fill_of(column)
    if stated is None:
        return None
    try:
        found = float(stated)
    except ValueError:
        raise InputError(f"data.missing.{column}: expected a number as in the column, found {stated!r}") from None
    if not np.isfinite(found):
        raise InputError(f"data.missing.{column}: expected a finite number, found {stated!r}")
    return found


def _named(values: Coded, missing: NDArray[np.bool_], fill: str | None) -> Coded:
    return values.filled(missing, fill or "") if missing.any() else values


def _filled(values: NDArray[np.float64], missing: NDArray[np.bool_], fill: float | None) -> NDArray[np.float64]:
    if not missing.any():
        return values
    found = values.copy()
    found[missing] = np.nan if fill is None else fill
    return found


def _whole(values: NDArray[np.float64]) -> bool:
    """Whether all numbers are whole; most columns of others show it in their first rows."""
    first, rest = values[:_FIRST], values[_FIRST:]
    return all(bool((np.isnan(some) | (some == np.round(some))).all()) for some in (first, rest))


def _refuse_missing(missing: NDArray[np.bool_], part: Part, column: str, data: DataConfig, *, nothing: str) -> None:
    if not missing.any() or data.missing == "indicator" or data.fill_of(column) is not None:
        return
    cells = part.cells[column]
    raise InputError(
        f"{_where(part, column)}: expected a value in every row, found {nothing} in {rows_of(missing, part.lines)}"
        f"{written_as(cells[missing])}; fill them (data.missing) or name the column in data.drop"
    )
