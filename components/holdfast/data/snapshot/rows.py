"""The rows of a delivery on their way from the readers to the files of a snapshot: a table, or images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column, Snapshot
from holdfast.data.snapshot.listing import Lines
from holdfast.data.snapshot.places import RowPlaces
from holdfast.quarantine.rows import image_digests, table_digests, without_fills
from holdfast.workload.schema import DeclaredKind

if TYPE_CHECKING:
    import pyarrow as pa


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

    def __len__(self) -> int:
        return len(next(iter(self.cells.values())))


class DeliveredRows(ABC):
    """Rows whose columns and classes have their types: `y` is int64[rows], an index into the classes."""

    y: NDArray[np.int64]
    places: RowPlaces | None
    """None where the source is no file that a person reads."""

    @abstractmethod
    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The rows where the mask is true, in order."""

    @abstractmethod
    def digests(self, classes: Sequence[str], columns: Sequence[Column]) -> list[str]:
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

    def digests(self, classes: Sequence[str], columns: Sequence[Column]) -> list[str]:
        """What a review calls each row."""
        return image_digests(self.x, [classes[index] for index in self.y])

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
    """The columns that the model sees: float64[rows] or object[rows] of `str` each."""

    columns: Mapping[str, NDArray[Any]]
    y: NDArray[np.int64]
    places: RowPlaces | None = None

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The rows where the mask is true, in order."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return type(self)(columns, self.y[rows], self.places and self.places.take(rows))

    def digests(self, classes: Sequence[str], columns: Sequence[Column]) -> list[str]:
        """What a review calls each row."""
        cells = without_fills({name: values.tolist() for name, values in self.columns.items()}, columns)
        return table_digests(cells, [classes[index] for index in self.y])

    def fingerprints(self) -> NDArray[np.uint64]:
        """A hash of the cells of each row."""
        import pandas as pd

        # -0 and 0 are one value.
        cells = {name: values + 0.0 if values.dtype.kind == "f" else values for name, values in self.columns.items()}
        return np.asarray(pd.util.hash_pandas_object(pd.DataFrame(cells), index=False), dtype=np.uint64)

    def training_columns(self, columns: Sequence[Column]) -> tuple[Column, ...]:
        """The columns, with the categories that these rows hold."""
        return tuple(self._with_categories(column) for column in columns)

    def save(self, folder: Path, split: str, document: Snapshot) -> None:
        """Writes the columns in the document's order, then the class names."""
        import pyarrow.parquet as pq

        pq.write_table(self._arrow(document), folder / f"{split}.parquet", compression="zstd")

    def _with_categories(self, column: Column) -> Column:
        if column.kind != "category":
            return column
        return column.model_copy(update={"categories": tuple(sorted(set(self.columns[column.name])))})

    def _arrow(self, document: Snapshot) -> "pa.Table":
        import pyarrow as pa

        labels = np.array([document.classes[index] for index in self.y], dtype=object)
        cells = {column.name: self.columns[column.name] for column in document.columns} | {document.label: labels}
        arrays = [
            pa.array(values, pa.float64() if values.dtype.kind == "f" else pa.string()) for values in cells.values()
        ]
        return pa.Table.from_arrays(arrays, names=list(cells))


def save_places(path: Path, train: RowPlaces | None, test: RowPlaces | None) -> None:
    """Writes where the rows of both parts are in the delivered file, where that is known of both; not compressed."""
    if train is not None and test is not None:
        with path.open("wb") as stream:
            np.savez(stream, train=train.stored(), test=test.stored())
