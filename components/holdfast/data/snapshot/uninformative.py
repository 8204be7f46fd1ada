"""Columns from which nothing can be learned: identifiers, in which each row has its own value, and constants.

A category column is an identifier when at least nine of ten rows have a value of their own. A column of whole numbers
is one when no value comes twice, in 1,000 rows or more, or when its values lie so close together that numbers drawn at
random between its smallest and its largest would repeat: with R such numbers and n rows at least n(n - 1) / 2R pairs
are expected to be equal (no other distribution repeats less often than the uniform one); 20 expected pairs and not one
in twenty of them found has a probability below 1e-7. Fractions and dates are never identifiers, and columns with fewer
than 100 values are not judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.coded import Coded, Values
from holdfast.data.snapshot.columns import Described, repeats_little
from holdfast.data.snapshot.listing import quoted
from holdfast.errors import InputError
from holdfast.modality.cells import spelt
from holdfast.workload.schema import DataConfig

MIN_VALUES = 100
SURELY_UNIQUE = 1_000
EXPECTED_PAIRS = 20.0
FOUND_SHARE = 1 / 20
Uninformative = Literal["identifier", "constant"]


@dataclass(frozen=True)
class Selected:
    """The columns that the model sees, and the names of others that were found."""

    described: list[Described]
    left_out: tuple[str, ...]
    constant: tuple[str, ...]


def select(described: Sequence[Described], data: DataConfig, name: str) -> Selected:
    """Leaves out, refuses or keeps identifiers and constants as `data.identifiers` and `data.constants` ask.

    Raises:
        InputError: the workload refuses what was found; the message begins with `name`.
    """
    found = {one.column.name: reason for one in described if (reason := uninformative(one, data)) is not None}
    refused = {"identifier": data.identifiers == "refuse", "constant": data.constants == "refuse"}
    for kind, explain in _REFUSALS.items():
        named = [one for one in described if found.get(one.column.name) == kind]
        if named and refused[kind]:
            raise InputError(f"{name}: {explain(named)}")
    drops = {"identifier": data.identifiers == "drop", "constant": data.constants == "drop"}
    left_out = tuple(column for column, reason in found.items() if drops[reason])
    return Selected(
        described=[one for one in described if one.column.name not in left_out],
        left_out=left_out,
        constant=tuple(column for column, reason in found.items() if reason == "constant" and column not in left_out),
    )


def uninformative(described: Described, data: DataConfig) -> Uninformative | None:
    """Why nothing can be learned from a column, by the training rows; None where something can."""
    values, missing = described.values[0], described.missing[0]
    if len(values) > 1 and not missing.any() and _is_constant(values):
        return "constant"
    present, column = values[~missing], described.column
    if isinstance(present, Coded):
        return "identifier" if repeats_little(present) else None
    stated = data.columns_as.get(column.name) == "number"
    if column.datetime or not column.integer or stated:
        return None
    return "identifier" if is_numbering(present) else None


def _is_constant(values: Values) -> bool:
    cells = values.codes if isinstance(values, Coded) else values
    return bool((cells == cells[0]).all())


def is_numbering(values: NDArray[np.float64]) -> bool:
    """Whether whole numbers float64[N] repeat so seldom that they number the rows."""
    count = len(values)
    if count < MIN_VALUES:
        return False
    times = np.unique(values, return_counts=True)[1].astype(np.float64)
    equal = float((times * (times - 1)).sum()) / 2
    expected = count * (count - 1) / 2 / (float(values.max()) - float(values.min()) + 1)
    dense = expected >= EXPECTED_PAIRS and equal <= expected * FOUND_SHARE
    return dense or (equal == 0 and count >= SURELY_UNIQUE)


def _identifiers(found: Sequence[Described]) -> str:
    names = [one.column.name for one in found]
    first = found[0]
    shown = quoted(map(spelt, first.values[0][~first.missing[0]][:3].tolist()))
    measures = next((one.column.name for one in found if one.column.kind == "number"), None)
    hint = "" if measures is None else f"; a number that measures something: data.columns_as: {{{measures}: number}}"
    return (
        f"expected columns whose values repeat, found identifiers, which have another value in every row: "
        f"{quoted(names)} ({shown}, …); name them in data.drop, or set data.identifiers to drop or keep{hint}"
    )


def _constants(found: Sequence[Described]) -> str:
    first: Any = found[0].values[0][:1].tolist()[0]
    return (
        f"expected columns with more than one value (data.constants: refuse), found the same in every row: "
        f"{quoted(one.column.name for one in found)} ({quoted([spelt(first)])}); name them in data.drop"
    )


_REFUSALS = {"identifier": _identifiers, "constant": _constants}
