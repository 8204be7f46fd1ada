"""Class names, from the cells of the label column: one name per class, however it is written."""

import re
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.listing import Lines, quoted, rows_of, written_as
from holdfast.errors import InputError
from holdfast.modality.cells import missing_cells, spell, spelt

_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?(e\+?[0-9]{1,2})?", re.IGNORECASE)
_PLAIN = re.compile(r"0|-?[1-9][0-9]*")


def class_labels(
    cells: NDArray[Any],
    where: str,
    *,
    given: Collection[str] | None = None,
    fill: str | None = None,
    lines: Lines = None,
) -> NDArray[np.object_]:
    """Class names, object[rows] of `str`.

    A whole number is written without a point, a bool as `true` or `false`, text in composed Unicode without outer
    spaces. A name that is among `given` is a class, even if it could mean that there is none.

    Raises:
        InputError: a label is missing (and there is no `fill`), a fraction, or one number in two spellings.
    """
    if cells.dtype.kind == "f":
        fractions = np.isfinite(cells) & (cells != np.round(cells))
        if fractions.any():
            found = f"found fractions in {rows_of(fractions, lines)}"
            raise InputError(f"{where}: expected class names or whole numbers, {found}")
    labels = spell(cells)
    missing = _missing(cells, labels, given or ())
    if missing.any() and fill is None:
        raise InputError(
            f"{where}: expected a label in every row, found none in {rows_of(missing, lines)}"
            f"{written_as(cells[missing])}; if that is the name of a class, list it in data.classes"
        )
    labels[missing] = fill
    return _as_given(labels, given) if given is not None else _whole_numbers(labels, where, lines)


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


def known_classes(
    labels: NDArray[np.object_], classes: Collection[str], where: str, *, source: str, lines: Lines = None
) -> None:
    """Every label is one of `classes`.

    Raises:
        InputError: otherwise; `source` names where the classes come from.
    """
    strange = set(labels) - set(classes)
    if strange:
        rows = rows_of(np.array([label in strange for label in labels], dtype=bool), lines)
        raise InputError(
            f"{where}: expected one of {quoted(classes)} ({source}), found {quoted(sorted(strange))} in {rows}"
        )


def _missing(cells: NDArray[Any], labels: NDArray[np.object_], given: Collection[str]) -> NDArray[np.bool_]:
    named = {spelt(name) for name in given}
    missing: NDArray[np.bool_] = missing_cells(cells) if cells.dtype.kind == "f" else missing_cells(labels)
    named_too = np.array([label in named and label != "" for label in labels], dtype=bool)
    return np.asarray(missing & ~named_too, dtype=bool)


def _as_given(labels: NDArray[np.object_], given: Collection[str]) -> NDArray[np.object_]:
    """The labels as the workload spells its classes; what it does not name stays as it is."""
    exact = {spelt(name): name for name in given}
    alike = {_key(name): name for name in reversed(list(given))}
    return np.array([exact.get(label) or alike.get(_key(label), label) for label in labels], dtype=object)


def _whole_numbers(labels: NDArray[np.object_], where: str, lines: Lines) -> NDArray[np.object_]:
    """Labels that are all whole numbers in one spelling; others as they are.

    Raises:
        InputError: one number is written in several ways of which one is a code, such as 1 and 01.
    """
    names: Mapping[str, str] = {label: _key(label) for label in dict.fromkeys(labels)}
    spellings: dict[str, set[str]] = {}
    for label, key in names.items():
        spellings.setdefault(key, set()).add(label)
    if all(_WHOLE.fullmatch(label) for label in names) and not any(map(_is_code, names)):
        return np.array([names[label] for label in labels], dtype=object)
    for twice in spellings.values():
        if len(twice) > 1:
            rows = rows_of(np.array([label in twice for label in labels], dtype=bool), lines)
            raise InputError(
                f"{where}: expected one spelling per class, found {quoted(sorted(twice))} in {rows}; "
                "list the classes in data.classes"
            )
    return labels


def _is_code(label: str) -> bool:
    digits = label.lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()


def _key(label: str) -> str:
    """What spellings of one class share: the whole number, or the lower-case bool."""
    if _PLAIN.fullmatch(label):
        return label
    if _WHOLE.fullmatch(label):
        return str(int(Decimal(label)))
    return label.lower() if label.lower() in ("true", "false") else label


def _by_size(label: str) -> tuple[bool, int, str]:
    number = label.lstrip("-").isascii() and label.lstrip("-").isdigit() and len(label) < 22
    return not number, int(label) if number else 0, label
