"""The cells of a column as arrays: the only place here that knows how the readers keep them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.coded import Coded, Values
from holdfast.data.snapshot.columns import Described
from holdfast.data.snapshot.rows import Part
from holdfast.modality.cells import missing_cells


def cells_of(part: Part, column: str) -> NDArray[Any]:
    """The cells as they were read: of a number type, or object[rows]."""
    return part.cells[column]


def delivered(parts: Sequence[Part], column: str) -> NDArray[Any]:
    """The cells of all parts, one after the other."""
    return np.concatenate([cells_of(part, column) for part in parts])


def typed(described: Described) -> list[NDArray[Any]]:
    """The values of each part: float64[rows], or object[rows] of `str`."""
    return [as_array(values) for values in described.values]


def as_array(values: Values) -> NDArray[Any]:
    """Values as float64[rows], or object[rows] of `str`."""
    return values.cells() if isinstance(values, Coded) else values


def missing_of(parts: Sequence[Part], column: str, described: Described | None) -> list[NDArray[np.bool_]]:
    """Where each part has no value, bool[rows]."""
    return [missing_cells(cells_of(part, column)) for part in parts] if described is None else described.missing
