"""The columns of a delimited file, gathered block by block: numbers as such, texts once each.

A column that is neither (a number column with junk in it, or more different texts than are kept) is read again when
somebody asks for its cells.
"""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.coded import Coded, Growing, Parsed, as_objects, constant
from holdfast.data.snapshot.numbers import DecimalMark
from holdfast.data.snapshot.plain import plain_numbers

if TYPE_CHECKING:
    import pyarrow as pa

MOST_TEXTS = 2**17
"""Different texts of a column that are kept while the other columns are read."""


@dataclass(frozen=True)
class Batch:
    """Some rows: the texts of each column, and the line on which each row begins."""

    columns: Mapping[str, "pa.Array"]
    lines: NDArray[np.int64]
    size: int
    """Bytes that they take in the file, about."""


@dataclass(frozen=True)
class Columns:
    """What was gathered; `names` has all columns, also those that are in neither of the two others."""

    names: tuple[str, ...]
    numbers: Mapping[str, Parsed]
    texts: Mapping[str, Coded]
    lines: NDArray[np.int64]


def gather(batches: Iterable[Batch], *, decimal: DecimalMark, texts: Iterable[str], expected: int) -> Columns:
    """The columns of all batches; those of `texts` hold no numbers. About `expected` rows come."""
    gathered: dict[str, _Column] = {}
    lines = Growing(np.int64, expected)
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as threads:
        for batch in batches:
            if not gathered:
                gathered = {name: _Column(decimal, expected, number=name not in texts) for name in batch.columns}
            lines.add(batch.lines)
            list(threads.map(_Column.add, gathered.values(), batch.columns.values()))
    return Columns(
        tuple(gathered),
        {name: parsed for name, column in gathered.items() if (parsed := column.parsed()) is not None},
        {name: coded for name, column in gathered.items() if (coded := column.coded()) is not None},
        lines.array(),
    )


def gather_texts(batches: Iterable[Batch]) -> dict[str, Coded]:
    """All columns as texts, however many there are."""
    found: dict[str, Texts] = {}
    for batch in batches:
        for name, cells in batch.columns.items():
            found.setdefault(name, Texts(0)).add(cells)
    return {name: texts.coded() for name, texts in found.items()}


class _Column:
    """One column on its way: numbers while all cells are, else texts if it began with them, else nothing."""

    def __init__(self, decimal: DecimalMark, expected: int, *, number: bool) -> None:
        self._decimal, self._expected = decimal, expected
        self._numbers = _Numbers(expected) if number else None
        self._texts = None if number else Texts(expected)
        self._rows = 0

    def add(self, texts: "pa.Array") -> None:
        """Takes the cells of the next rows."""
        if self._numbers is not None and not self._numbers.add(texts, self._decimal):
            self._numbers = None
            self._texts = Texts(self._expected) if self._rows == 0 else None
        if self._texts is not None:
            self._texts.add(texts)
            self._texts = self._texts if len(self._texts) <= MOST_TEXTS else None
        self._rows += len(texts)

    def parsed(self) -> Parsed | None:
        """The numbers, if the column has nothing else."""
        return None if self._numbers is None else self._numbers.parsed()

    def coded(self) -> Coded | None:
        """The texts, if they were kept."""
        return None if self._texts is None else self._texts.coded()


class _Numbers:
    def __init__(self, expected: int) -> None:
        self._values = Growing(np.float64, expected)
        self._missing: list[NDArray[np.int64]] = []
        self._rows = 0

    def add(self, texts: "pa.Array", decimal: DecimalMark) -> bool:
        """Whether the cells are numbers."""
        found = plain_numbers(texts, decimal)
        if found is None:
            return False
        self._values.add(found.values)
        self._missing.append(found.missing + self._rows)
        self._rows += len(texts)
        return True

    def parsed(self) -> Parsed:
        gone = np.concatenate(self._missing)
        if len(gone) == 0:
            return Parsed(self._values.array(), constant(True, self._rows), constant(False, self._rows))
        missing = np.zeros(self._rows, dtype=bool)
        missing[gone] = True
        return Parsed(self._values.array(), ~missing, missing)


class Texts:
    """Values of a column, each once, and which of them each row holds; None where a cell is null."""

    def __init__(self, expected: int) -> None:
        self._codes = Growing(np.int32, expected)
        self._index: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self._index)

    def add(self, cells: "pa.Array") -> None:
        """Takes the cells of the next rows."""
        index, encoded = self._index, cells.dictionary_encode()
        known = [index.setdefault(value, len(index)) for value in encoded.dictionary.to_pylist()]
        if encoded.indices.null_count:
            known.append(index.setdefault(None, len(index)))
        at = encoded.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)
        self._codes.add(np.array(known, dtype=np.int32)[at])

    def coded(self) -> Coded:
        """The column."""
        return Coded(as_objects(self._index), self._codes.array())
