"""The rows of a delivery on their way from the readers to the files of a snapshot: a table, or images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column, Snapshot
from holdfast.quarantine.rows import image_digests, table_digests

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Part:
    """One file's rows as they were read: `cells` maps a column to float64[rows] or object[rows].

    Messages call the file `name`.
    """

    name: str
    cells: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.cells.values())))


class DeliveredRows(ABC):
    """Rows whose columns and classes have their types: `y` is int64[rows], an index into the classes."""

    y: NDArray[np.int64]

    @abstractmethod
    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The rows where the mask is true, in order."""

    @abstractmethod
    def digests(self, classes: Sequence[str]) -> list[str]:
        """What a review calls each row: `holdfast.quarantine.rows`."""

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
    y: NDArray[np.int64]
    pixel_range: tuple[float, float] = (0.0, 1.0)
    """The values that mean 0 and 1, unless the workload names others."""

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The rows where the mask is true, in order."""
        return replace(self, x=self.x[rows], y=self.y[rows])

    def digests(self, classes: Sequence[str]) -> list[str]:
        """What a review calls each row."""
        return image_digests(self.x, [classes[index] for index in self.y])

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

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The rows where the mask is true, in order."""
        return type(self)({name: values[rows] for name, values in self.columns.items()}, self.y[rows])

    def digests(self, classes: Sequence[str]) -> list[str]:
        """What a review calls each row."""
        cells = {name: values.tolist() for name, values in self.columns.items()}
        return table_digests(cells, [classes[index] for index in self.y])

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
