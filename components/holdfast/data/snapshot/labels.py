"""Class names, from the cells of the label column: one name per class, however it is written."""

import re
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.coded import Coded, Values, coded
from holdfast.data.snapshot.listing import Lines, quoted, rows_of, written_as
from holdfast.errors import InputError
from holdfast.modality.cells import missing_cells, spell, spelt

_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?(e\+?[0-9]{1,2})?", re.IGNORECASE)
MAX_CLASSES = 10_000
_PLAIN = re.compile(r"0|-?[1-9][0-9]*")


def class_labels(
    cells: Values,
    where: str,
    *,
    given: Collection[str] | None = None,
    fill: str | None = None,
    lines: Lines = None,
) -> Coded:
    """Class names.

    A whole number is written without a point, a bool as `true` or `false`, text in composed Unicode without outer
    spaces. A name that is among `given` is a class, even if it could mean that there is none.

    Raises:
        InputError: a label is missing (and there is no `fill`), a fraction, or one number in two spellings.
    """
    if not isinstance(cells, Coded) and cells.dtype.kind == "f":
        _refuse_fractions(cells, where, lines)
    delivered = coded(cells)
    labels = spell(delivered.values)
    missing = _missing(labels, given or ())
    rows = delivered.spread(missing)
    if rows.any() and fill is None:
        raise InputError(
            f"{where}: expected a label in every row, found none in {rows_of(rows, lines)}"
            f"{written_as(delivered.values[missing])}; if that is the name of a class, list it in data.classes"
        )
    labels[missing] = fill
    found = delivered.renamed(labels)
    return _as_given(found, given) if given is not None else _whole_numbers(found, where, lines)


def find_classes(labels: Values, given: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """`given`, or the labels found: numbers by size, names by alphabet.

    Raises:
        InputError: a label is not among `given`, or there is one class only, or more than `MAX_CLASSES`.
    """
    found = sorted(coded(labels).used(), key=_by_size)
    if given is not None:
        known_classes(labels, given, where, source="data.classes")
        found = list(given)
    elif len(found) > MAX_CLASSES:
        raise InputError(f"{where}: expected at most {MAX_CLASSES} classes, found {len(found)}")
    if len(found) < 2:
        raise InputError(f"{where}: expected at least two classes, found {quoted(found)} only")
    return tuple(found)


def known_classes(labels: Values, classes: Collection[str], where: str, *, source: str, lines: Lines = None) -> None:
    """Every label is one of `classes`.

    Raises:
        InputError: otherwise; `source` names where the classes come from.
    """
    found = coded(labels)
    strange = set(found.used()) - set(classes)
    if strange:
        raise InputError(
            f"{where}: expected one of {quoted(classes)} ({source}), found {quoted(sorted(strange))} in "
            f"{rows_of(_among(found, strange), lines)}"
        )


def _refuse_fractions(cells: NDArray[Any], where: str, lines: Lines) -> None:
    fractions = np.isfinite(cells) & (cells != np.round(cells))
    if fractions.any():
        found = f"found fractions in {rows_of(fractions, lines)}"
        raise InputError(f"{where}: expected class names or whole numbers, {found}")


def _among(labels: Coded, some: Collection[str]) -> NDArray[np.bool_]:
    return labels.spread(np.array([label in some for label in labels.values], dtype=bool))


def _missing(labels: NDArray[np.object_], given: Collection[str]) -> NDArray[np.bool_]:
    named = {spelt(name) for name in given}
    missing: NDArray[np.bool_] = missing_cells(labels)
    named_too = np.array([label in named and label != "" for label in labels], dtype=bool)
    return np.asarray(missing & ~named_too, dtype=bool)


def _as_given(labels: Coded, given: Collection[str]) -> Coded:
    """The labels as the workload spells its classes; what it does not name stays as it is."""
    exact = {spelt(name): name for name in given}
    alike = {_key(name): name for name in reversed(list(given))}
    return labels.renamed(exact.get(label) or alike.get(_key(label), label) for label in labels.values)


def _whole_numbers(labels: Coded, where: str, lines: Lines) -> Coded:
    """Labels that are all whole numbers in one spelling; others as they are.

    Raises:
        InputError: one number is written in several ways of which one is a code, such as 1 and 01.
    """
    names = labels.values.tolist()
    spellings: dict[str, set[str]] = {}
    for label in names:
        spellings.setdefault(_key(label), set()).add(label)
    if all(_WHOLE.fullmatch(label) for label in names) and not any(map(_is_code, names)):
        return labels.renamed(map(_key, names))
    for twice in spellings.values():
        if len(twice) > 1:
            raise InputError(
                f"{where}: expected one spelling per class, found {quoted(sorted(twice))} in "
                f"{rows_of(_among(labels, twice), lines)}; list the classes in data.classes"
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
