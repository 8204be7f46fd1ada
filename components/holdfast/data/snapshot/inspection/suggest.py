"""Keys with which the snapshot step takes a file as it is, for `holdfast init` to write and explain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.data.snapshot.coded import Parsed
from holdfast.data.snapshot.columns import MAX_CATEGORIES, Described, describe
from holdfast.data.snapshot.inspection.cells import cells_of, missing_of
from holdfast.data.snapshot.inspection.columns import lenient
from holdfast.data.snapshot.numbers import check_numbers, parse_numbers
from holdfast.data.snapshot.rows import ImageRows, Part
from holdfast.data.snapshot.uninformative import uninformative
from holdfast.errors import InputError
from holdfast.modality.cells import missing_cells, seconds
from holdfast.workload.schema import DataConfig, DeclaredKind

_Treatment = Literal["drop", "keep", "category", "datetime"]
_REASONS = {"identifier": "another value in every row", "constant": "one value in every row"}
_DATES = 50


@dataclass(frozen=True)
class Suggested:
    """A data section, and why it drops or converts a column."""

    data: DataConfig
    reasons: dict[str, str]
    gaps: tuple[str, ...] = ()
    """Kept columns with missing cells."""


def suggest(parts: Sequence[Part], data: DataConfig) -> Suggested:
    """Codes become categories, columns of which nothing can be made or learned are dropped, missing cells indicated.

    What only the owner can know stays refused: labels, decimal marks, a text among numbers.
    """
    drop: list[str] = []
    reasons: dict[str, str] = {}
    stated: dict[str, DeclaredKind] = {}
    gaps: list[str] = []
    names = [column for column in parts[0].cells if column != data.label]
    for name in names:
        kind, reason = _treatment(parts, name, data)
        if kind == "drop":
            drop.append(name)
            reasons[name] = reason
        elif kind != "keep":
            stated[name] = kind
            reasons[name] = reason
        if kind != "drop" and any(bool(gone.any()) for gone in missing_of(parts, name, None)):
            gaps.append(name)
    found = data.model_copy(
        update={
            "drop": data.drop if len(drop) == len(names) else (*data.drop, *drop),
            "columns_as": {**data.columns_as, **stated},
            "missing": "indicator" if gaps else data.missing,
        }
    )
    return Suggested(found, reasons, tuple(gaps))


def without_dropped(parts: Sequence[Part], data: DataConfig) -> list[Part]:
    """The parts as they are read once `data.drop` names more columns."""
    return [part.without(data.drop) for part in parts]


def suggest_range(parts: Sequence[ImageRows]) -> tuple[float, float]:
    """The lowest and the highest value of training images, for those that no usual range fits."""
    x = parts[0].x
    return float(np.floor(x.min())), float(np.ceil(x.max()))


def _treatment(parts: Sequence[Part], column: str, data: DataConfig) -> tuple[_Treatment, str]:
    """drop, keep, or what the column is; and why."""
    section = lenient(data)
    if column not in data.columns_as and _holds_dates(parts, column):
        return _as_dates(parts, column, section)
    try:
        described = describe(parts, column, section)
    except InputError:
        return _repair(parts, column, section)
    found = uninformative(described, section)
    return ("drop", _REASONS[found]) if found is not None else ("keep", "")


def _as_dates(parts: Sequence[Part], column: str, section: DataConfig) -> tuple[_Treatment, str]:
    try:
        _described_as(parts, column, section, "datetime")
    except InputError:
        return "drop", "dates that float32 cannot distinguish"
    return "datetime", "dates"


def _repair(parts: Sequence[Part], column: str, section: DataConfig) -> tuple[_Treatment, str]:
    """For a column that is refused although its missing cells would not matter."""
    parsed = [parse_numbers(cells_of(part, column), part.decimal) for part in parts]
    try:
        for part, one in zip(parts, parsed, strict=True):
            check_numbers(one, part, column, stated=False)
    except InputError:
        return _as_codes(parts, column, section) if _may_be_codes(parts, column, parsed) else ("keep", "")
    if all(bool((one.numeric | one.missing).all()) for one in parsed):
        return "drop", "numbers that float32 cannot distinguish"
    return "drop", f"more than {MAX_CATEGORIES} different values"


def _as_codes(parts: Sequence[Part], column: str, section: DataConfig) -> tuple[_Treatment, str]:
    try:
        described = _described_as(parts, column, section, "category")
    except InputError:
        return "drop", f"codes of more than {MAX_CATEGORIES} values"
    found = uninformative(described, section)
    return ("category", "codes") if found is None else ("drop", _REASONS[found])


def _may_be_codes(parts: Sequence[Part], column: str, parsed: Sequence[Parsed]) -> bool:
    """Whether what is no number has a digit in it, as in V27; what `?` among amounts means the owner must know."""
    if any(bool(np.isinf(one.values).any()) for one in parsed):
        return False
    texts = {
        str(cell)
        for part, one in zip(parts, parsed, strict=True)
        for cell in cells_of(part, column)[~one.numeric & ~one.missing]
    }
    return all(any(mark.isdigit() for mark in text) for text in texts) and (
        sum(int(one.numeric.sum()) for one in parsed) > 0
    )


def _holds_dates(parts: Sequence[Part], column: str) -> bool:
    """Whether the first texts of a column are ISO 8601 dates."""
    cells = cells_of(parts[0], column)
    if cells.dtype.kind != "O" or column in parts[0].kinds:
        return False
    texts = [str(cell).strip() for cell in cells[~missing_cells(cells)][:_DATES]]
    return bool(texts) and all("-" in text[1:] and _is_date(text) for text in texts)


def _is_date(text: str) -> bool:
    try:
        seconds(text)
    except ValueError:
        return False
    return True


def _described_as(parts: Sequence[Part], column: str, section: DataConfig, kind: DeclaredKind) -> Described:
    stated = section.model_copy(update={"columns_as": {**section.columns_as, column: kind}})
    return describe(parts, column, stated)
