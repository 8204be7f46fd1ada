"""Columns in the least memory: each text once with an index per row, and numbers as eight bytes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True)
class Coded:
    """A column as its distinct values, object[values], and which of them each row holds, int32[rows]."""

    values: NDArray[np.object_]
    codes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> "Coded":
        return Coded(self.values, self.codes[rows])

    def cells(self) -> NDArray[np.object_]:
        """The value of each row."""
        return self.values[self.codes]

    def tolist(self) -> list[Any]:
        """The value of each row."""
        return list(self.cells())

    def spread(self, of_values: NDArray[Any]) -> NDArray[Any]:
        """What is true of the values, for each row."""
        return of_values[self.codes]

    def renamed(self, names: Iterable[Any]) -> "Coded":
        """The column with other values in place of its own; equal ones become one."""
        index: dict[Any, int] = {}
        moved = np.array([index.setdefault(name, len(index)) for name in names], dtype=np.int32)
        return Coded(as_objects(index), moved[self.codes])

    def filled(self, rows: NDArray[np.bool_], value: Any) -> "Coded":
        """The column with `value` in the rows where the mask is true."""
        codes = self.codes.copy()
        codes[rows] = len(self.values)
        return Coded(as_objects([*self.values, value]), codes).renamed([*self.values, value])

    def used(self) -> list[Any]:
        """The values that some row holds."""
        counts = np.bincount(self.codes, minlength=len(self.values))
        return [value for value, count in zip(self.values, counts, strict=True) if count]


Values = NDArray[Any] | Coded
"""float64[rows], or texts."""


@dataclass(frozen=True)
class Parsed:
    """Cells as numbers, float64[rows]; NaN where there is none."""

    values: NDArray[np.float64]
    numeric: NDArray[np.bool_]
    missing: NDArray[np.bool_]


def encode(cells: Iterable[Any]) -> Coded:
    """Cells of any type; values are one only when they are equal and of one type: True is not 1, nor 1.0."""
    index: dict[Any, int] = {}
    listed = cells.tolist() if isinstance(cells, np.ndarray) else list(cells)
    one_type = len({type(cell) for cell in listed}) <= 1
    keys = listed if one_type else [(type(cell), cell) for cell in listed]
    codes = np.array([index.setdefault(key, len(index)) for key in keys], dtype=np.int32)
    return Coded(as_objects(index if one_type else [key[1] for key in index]), codes)


def coded(column: Values) -> Coded:
    """A column as distinct values; those of an array are numpy's scalars."""
    if isinstance(column, Coded):
        return column
    if column.dtype.kind == "O":
        return encode(column)
    values, codes = np.unique(column, return_inverse=True)
    return Coded(as_objects(list(values)), codes.astype(np.int32))


def filled(column: Values, rows: NDArray[np.bool_], value: Any) -> Values:
    """A copy of the column with `value` where the mask is true."""
    if isinstance(column, Coded):
        return column.filled(rows, value)
    copy = column.copy()
    copy[rows] = value
    return copy


class Growing:
    """An array that is written from the front; memory that was not written yet costs nothing."""

    def __init__(self, dtype: DTypeLike, expected: int) -> None:
        self._array = np.empty(max(expected, 1), dtype=dtype)
        self._used = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""
        return self._array.dtype

    def add(self, values: NDArray[Any]) -> None:
        """Writes `values` behind the others."""
        end = self._used + len(values)
        if end > len(self._array):
            grown = np.empty(max(end, len(self._array) * 3 // 2), dtype=self._array.dtype)
            grown[: self._used] = self._array[: self._used]
            self._array = grown
        self._array[self._used : end] = values
        self._used = end

    def array(self) -> NDArray[Any]:
        """What was written."""
        return self._array[: self._used]


def constant(value: bool, rows: int) -> NDArray[np.bool_]:
    """The same answer for every row, in no memory; it cannot be written to."""
    return np.broadcast_to(np.asarray(value), rows)


class Cells(Mapping[str, NDArray[Any]]):
    """The cells of each column: of a number type, or object[rows] made of its texts when they are asked for.

    A column that is not among `columns` is read when it is needed, by `read`, which may give others with it.
    """

    def __init__(
        self,
        names: Sequence[str],
        columns: Mapping[str, Values],
        read: Callable[[str], Mapping[str, Values]] | None = None,
    ) -> None:
        self._names, self._columns, self._read = dict.fromkeys(names), columns, read
        self._last: Mapping[str, Values] = {}

    def __getitem__(self, column: str) -> NDArray[Any]:
        found = self.column(column)
        return found.cells() if isinstance(found, Coded) else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, column: object) -> bool:
        return column in self._names

    def of(self, names: Iterable[str]) -> "Cells":
        """The same with these columns alone."""
        return Cells(list(names), self._columns, self._read)

    def column(self, column: str) -> Values:
        """The column in the least memory."""
        if column in self._columns:
            return self._columns[column]
        if column not in self._names or self._read is None:
            raise KeyError(column)
        if column not in self._last:
            self._last = self._read(column)
        return self._last[column]


def as_objects(values: Iterable[Any]) -> NDArray[np.object_]:
    """An array of objects, object[values]."""
    listed = list(values)
    found = np.empty(len(listed), dtype=object)
    found[:] = listed
    return found
