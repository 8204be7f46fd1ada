"""The rows of a delivery on their way from the readers to the files of a snapshot: a table, or images.

A table is kept once: taking rows of it remembers which, and digests and files are made of a block of rows at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column, Snapshot
from holdfast.data.snapshot.coded import Cells, Coded, Parsed, Values, encode
from holdfast.data.snapshot.listing import Lines
from holdfast.data.snapshot.places import RowPlaces
from holdfast.quarantine.rows import image_digests, table_digests, without_fills
from holdfast.workload.schema import DeclaredKind

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
BLOCK_CELLS = 2**25
"""Cells of a table that are hashed and written at a time, a row group each."""


@dataclass(frozen=True)
class Part:
    """One file's rows as they were read: `cells` maps a column to its cells, of any number type or object[rows].

    Messages call the file `name`.
    """

    name: str
    cells: Mapping[str, NDArray[Any]]
    lines: Lines = None
    kinds: Mapping[str, DeclaredKind] = field(default_factory=dict)
    """What a typed file states about its columns, where that is more than their cells show."""
    dropped: frozenset[str] = frozenset()
    """Columns of the file that were not read."""
    decimal: Literal[".", ","] = "."
    """What the file writes before the fraction of a number."""
    read_as: str | None = None
    """How the file was read, where that is not the usual way."""
    numbers: Mapping[str, Parsed] = field(default_factory=dict)
    """Columns of texts that the reader understood as numbers already: they hold nothing else, and no code."""
    rows: int | None = None
    """How many there are, where `cells` would have to be made to be counted."""

    def __len__(self) -> int:
        return len(next(iter(self.cells.values()))) if self.rows is None else self.rows

    def without(self, dropped: Collection[str]) -> Self:
        """The part as if these columns had not been read."""
        kept = [name for name in self.cells if name not in dropped]
        cells = self.cells.of(kept) if isinstance(self.cells, Cells) else {name: self.cells[name] for name in kept}
        return replace(self, cells=cells, dropped=self.dropped | (frozenset(self.cells) - frozenset(kept)))

    def column(self, name: str) -> Values:
        """The cells of a column: of a number type, or each text once."""
        if isinstance(self.cells, Cells):
            return self.cells.column(name)
        cells = self.cells[name]
        return encode(cells) if cells.dtype.kind == "O" else cells


class DeliveredRows(ABC):
    """Rows whose columns and classes have their types: `y` is int64[rows], an index into the classes."""

    y: NDArray[np.int64]
    places: RowPlaces | None
    """None where the source is no file that a person reads."""

    @abstractmethod
    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The rows where the mask is true, in order."""

    @abstractmethod
    def digests(self, classes: Sequence[str], columns: Sequence[Column]) -> Iterator[str]:
        """What a review calls each row: `holdfast.quarantine.rows`."""

    @abstractmethod
    def fingerprints(self) -> NDArray[np.uint64]:
        """A number per row that rows of equal values share; labels are left out."""

    @abstractmethod
    def training_columns(self, columns: Sequence[Column]) -> tuple[Column, ...]:
        """The columns, with the categories that these rows hold."""

    @abstractmethod
    def save(self, folder: Path, split: str, document: Snapshot) -> None:
        """Writes the file of a split: equal rows give equal bytes."""


@dataclass(frozen=True)
class ImageRows(DeliveredRows):
    """Images `number[N, C, H, W]`, bytes as bytes; messages call their file `name`."""

    name: str
    x: NDArray[Any]
    y: NDArray[Any]
    """The labels as they were read, then int64[N]."""
    pixel_range: tuple[float, float] | None = None
    """The values that mean 0 and 1 where the source states them, unless the workload names others."""
    places: RowPlaces | None = None

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The rows where the mask is true, in order."""
        return replace(self, x=self.x[rows], y=self.y[rows], places=self.places and self.places.take(rows))

    def digests(self, classes: Sequence[str], columns: Sequence[Column]) -> Iterator[str]:
        """What a review calls each row."""
        return iter(image_digests(self.x, [classes[index] for index in self.y]))

    def fingerprints(self) -> NDArray[np.uint64]:
        """A hash of the pixels of each image."""
        digests = b"".join(blake2b(image.tobytes(), digest_size=8).digest() for image in self.x)
        return np.frombuffer(digests, dtype=np.uint64)

    def training_columns(self, columns: Sequence[Column]) -> tuple[Column, ...]:
        """None: images have no columns."""
        return tuple(columns)

    def save(self, folder: Path, split: str, document: Snapshot) -> None:
        """Writes `x` and `y`; numpy stores the members uncompressed and with a constant date."""
        with (folder / f"{split}.npz").open("wb") as stream:
            np.savez(stream, x=self.x, y=self.y)


@dataclass(frozen=True)
class TableRows(DeliveredRows):
    """The columns that the model sees."""

    columns: Mapping[str, Values]
    """Of all delivered rows."""
    y: NDArray[np.int64]
    chosen: NDArray[np.int32] | None = None
    """Which of the delivered rows these are; None: all."""
    places: RowPlaces | None = None
    """Where these rows are in the delivered file."""

    def column(self, name: str) -> Values:
        """The values of these rows: float64[rows], or texts."""
        return self._cells(name, 0, len(self.y))

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The rows where the mask is true, in order."""
        taken = np.flatnonzero(rows).astype(np.int32) if self.chosen is None else self.chosen[rows]
        return replace(self, y=self.y[rows], chosen=taken, places=self.places and self.places.take(rows))

    def digests(self, classes: Sequence[str], columns: Sequence[Column]) -> Iterator[str]:
        """What a review calls each row."""
        for start, end in self._blocks():
            cells = {name: self._cells(name, start, end).tolist() for name in self.columns}
            names = [classes[index] for index in self.y[start:end]]
            yield from table_digests(without_fills(cells, columns), names)

    def fingerprints(self) -> NDArray[np.uint64]:
        """A hash of the cells of each row."""
        return np.concatenate([self._fingerprints(start, end) for start, end in self._blocks()])

    def training_columns(self, columns: Sequence[Column]) -> tuple[Column, ...]:
        """The columns, with the categories that these rows hold."""
        return tuple(self._with_categories(column) for column in columns)

    def save(self, folder: Path, split: str, document: Snapshot) -> None:
        """Writes the columns in the document's order, then the class names, a row group per block."""
        import pyarrow.parquet as pq

        blocks = self._blocks()
        with pq.ParquetWriter(folder / f"{split}.parquet", self._schema(document), compression="zstd") as writer:
            for start, end in blocks:
                writer.write_table(self._arrow(document, start, end), row_group_size=max(end - start, 1))

    def _blocks(self) -> list[tuple[int, int]]:
        """First and last row of each block, at least one block."""
        size = max(BLOCK_CELLS // max(len(self.columns), 1), 1)
        return [(start, min(start + size, len(self.y))) for start in range(0, max(len(self.y), 1), size)]

    def _cells(self, name: str, start: int, end: int) -> Values:
        values = self.columns[name]
        return values[start:end] if self.chosen is None else values[self.chosen[start:end]]

    def _fingerprints(self, start: int, end: int) -> NDArray[np.uint64]:
        from pandas.util import hash_array

        found = np.zeros(end - start, dtype=np.uint64)
        for name in self.columns:
            found ^= hash_array(_hashable(self._cells(name, start, end)))
            found *= _MULTIPLIER
        return found

    def _with_categories(self, column: Column) -> Column:
        if column.kind != "category":
            return column
        values = self.column(column.name)
        assert isinstance(values, Coded), "categories are texts"
        return column.model_copy(update={"categories": tuple(sorted(values.used()))})

    def _schema(self, document: Snapshot) -> "pa.Schema":
        import pyarrow as pa

        names = [*(column.name for column in document.columns), document.label]
        texts = {name for name, values in self.columns.items() if isinstance(values, Coded)} | {document.label}
        return pa.schema([(name, pa.string() if name in texts else pa.float64()) for name in names])

    def _arrow(self, document: Snapshot, start: int, end: int) -> "pa.Table":
        import pyarrow as pa

        labels = Coded(np.array(document.classes, dtype=object), self.y[start:end].astype(np.int32))
        cells = {column.name: self._cells(column.name, start, end) for column in document.columns}
        arrays = [_array(values) for values in (cells | {document.label: labels}).values()]
        return pa.Table.from_arrays(arrays, schema=self._schema(document))


def _array(values: Values) -> "pa.Array":
    import pyarrow as pa

    if isinstance(values, Coded):
        return pa.array(values.values, pa.string()).take(pa.array(values.codes))
    return pa.array(values, pa.float64())


def _hashable(values: Values) -> "NDArray[np.float64] | pd.Categorical":
    """Values of which pandas hashes each text once; -0 and 0 are one value."""
    import pandas as pd

    if isinstance(values, Coded):
        return pd.Categorical.from_codes(values.codes, values.values)
    return values + 0.0


def save_places(path: Path, train: RowPlaces | None, test: RowPlaces | None) -> None:
    """Writes where the rows of both parts are in the delivered file, where that is known of both; not compressed."""
    if train is not None and test is not None:
        with path.open("wb") as stream:
            np.savez(stream, train=train.stored(), test=test.stored())
