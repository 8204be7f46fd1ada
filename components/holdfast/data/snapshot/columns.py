"""The types of columns, from their cells: what is a number, what a category, what cannot be used.

A column is a number when all its cells are; it is a category when most of them are not. In between there is a
mistake in the data, and guessing would hide it. Missing values are refused: what they mean is the owner's to say.
"""

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column
from holdfast.data.snapshot.listing import quoted, rows_of
from holdfast.data.snapshot.rows import Part
from holdfast.errors import InputError, LimitError
from holdfast.modality.precision import check_precision

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>"})
MAX_CATEGORIES = 1000
_BOOLEANS = {"true": 1.0, "false": 0.0}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?")
"""Numbers in lower case. Python's own idea of a number is wider: it takes 1_000, which in a table is a code."""


def pick(part: Part, column: str, role: str) -> NDArray[Any]:
    """The cells of `column`.

    Raises:
        InputError: there is none; the message suggests the name meant.
    """
    if column not in part.cells:
        close = difflib.get_close_matches(column, part.cells, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"found {quoted(part.cells)}"
        raise InputError(f"{part.name}: expected a {role} column {column!r}; {hint}")
    return part.cells[column]


def class_labels(cells: NDArray[Any], where: str) -> NDArray[np.object_]:
    """Class names, object[rows] of `str`; a whole number is written without a point.

    Raises:
        InputError: a label is missing or a fraction.
    """
    if cells.dtype.kind == "f":
        missing = ~np.isfinite(cells)
        fractions = ~missing & (cells != np.round(cells))
        if fractions.any():
            raise InputError(f"{where}: expected class names or whole numbers, found fractions in {rows_of(fractions)}")
        names = [str(int(value)) if ok else "" for value, ok in zip(cells, ~missing, strict=True)]
    else:
        names = ["" if value is None else str(value).strip() for value in cells]
    labels = np.array(names, dtype=object)
    missing = labels == ""
    if missing.any():
        raise InputError(f"{where}: expected a label in every row, found none in {rows_of(missing)}")
    return labels


def find_classes(labels: NDArray[np.object_], given: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """`given`, or the labels found: numbers by size, names by alphabet.

    Raises:
        InputError: a label is not among `given`, or there is one class only.
    """
    found = sorted(set(labels), key=_by_size)
    if given is not None:
        known_classes(labels, given, where, source="data.classes")
        found = list(given)
    if len(found) < 2:
        raise InputError(f"{where}: expected at least two classes, found {quoted(found)} only")
    return tuple(found)


def known_classes(labels: NDArray[np.object_], classes: Collection[str], where: str, *, source: str) -> None:
    """Every label is one of `classes`.

    Raises:
        InputError: otherwise; `source` names where the classes come from.
    """
    unknown = ~np.isin(labels.astype(str), np.array(list(classes), dtype=str))
    if unknown.any():
        names = quoted(sorted(set(labels[unknown])))
        raise InputError(f"{where}: expected one of {quoted(classes)} ({source}), found {names} in {rows_of(unknown)}")


def describe(parts: Sequence[Part], column: str, *, immutable: bool) -> tuple[Column, list[NDArray[Any]]]:
    """The column's description and, per part, its values: float64[rows] or object[rows] of `str`.

    The kind is decided over all parts; `parts[0]` is the training rows, or all rows, and gives the categories.

    Raises:
        InputError: missing or non-finite values, text among numbers, or numbers that float32 cannot distinguish.
        LimitError: too many categories.
    """
    cells = [pick(part, column, "data") for part in parts]
    parsed = [_parse(one) for one in cells]
    usable = sum(int((~one.missing).sum()) for one in parsed)
    numbers = sum(int(one.numeric.sum()) for one in parsed)
    if usable == 0 or numbers * 2 >= usable:
        for part, one, raw in zip(parts, parsed, cells, strict=True):
            _check_numbers(one, raw, f"{part.name}: column {column!r}")
        check_precision(parsed[0].values, f"{parts[0].name}: column {column!r}")
        whole = all(bool((one.values == np.round(one.values)).all()) for one in parsed)
        return Column(name=column, kind="number", integer=whole, immutable=immutable), [one.values for one in parsed]
    values = [_categories(raw, f"{part.name}: column {column!r}") for part, raw in zip(parts, cells, strict=True)]
    return Column(name=column, kind="category", categories=known(values[0]), immutable=immutable), values


def known(values: NDArray[np.object_]) -> tuple[str, ...]:
    """The different values, sorted."""
    return tuple(sorted(set(values)))


@dataclass(frozen=True)
class _Parsed:
    values: NDArray[np.float64]
    numeric: NDArray[np.bool_]
    missing: NDArray[np.bool_]


def _parse(cells: NDArray[Any]) -> _Parsed:
    if cells.dtype.kind == "f":
        return _Parsed(cells, ~np.isnan(cells), np.isnan(cells))
    texts = ["" if value is None else str(value).strip().lower() for value in cells]
    missing = np.array([text in MISSING for text in texts], dtype=bool)
    if not missing.all() and set(texts) <= MISSING | _BOOLEANS.keys():
        values = np.array([_BOOLEANS.get(text, np.nan) for text in texts])
        return _Parsed(values, ~missing, missing)
    values = np.array(_to_numbers(["nan" if gone else text for text, gone in zip(texts, missing, strict=True)]))
    return _Parsed(values, ~np.isnan(values), missing)


def _to_numbers(texts: list[str]) -> list[float]:
    """NaN for what is no number; what is too large is infinite."""
    try:
        if not any("_" in text for text in texts):
            return [float(text) for text in texts]
    except ValueError:
        pass
    return [float(text) if _NUMBER.fullmatch(text) else np.nan for text in texts]


def _check_numbers(parsed: _Parsed, raw: NDArray[Any], where: str) -> None:
    junk = ~parsed.numeric & ~parsed.missing
    if junk.any():
        raise InputError(f"{where}: expected numbers, found {quoted(raw[junk][:5])} in {rows_of(junk)}")
    if parsed.missing.any():
        raise InputError(
            f"{where}: expected a value in every row, found NaN or nothing in {rows_of(parsed.missing)}; "
            "fill them or name the column in data.drop"
        )
    infinite = np.isinf(parsed.values)
    if infinite.any():
        raise InputError(f"{where}: expected finite numbers, found infinity or overflow in {rows_of(infinite)}")


def _categories(raw: NDArray[Any], where: str) -> NDArray[np.object_]:
    values = np.array(["" if value is None else str(value).strip() for value in raw], dtype=object)
    missing = values == ""
    if missing.any():
        raise InputError(
            f"{where}: expected a value in every row, found nothing in {rows_of(missing)}; "
            "fill them or name the column in data.drop"
        )
    if len(set(values)) > MAX_CATEGORIES:
        raise LimitError(
            f"{where}: expected at most {MAX_CATEGORIES} different values, found {len(set(values))}; "
            "name the column in data.drop"
        )
    return values


def _by_size(label: str) -> tuple[bool, int, str]:
    number = label.lstrip("-").isascii() and label.lstrip("-").isdigit() and len(label) < 19
    return not number, int(label) if number else 0, label
