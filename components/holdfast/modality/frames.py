"""Rows in Parquet files: what tables and messages share."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError
from holdfast.modality.protocol import SplitName

if TYPE_CHECKING:
    import pandas as pd


BLOCK_CELLS = 2**22
"""Cells of a table that are looked at together."""
_BUFFER = 2**20


def harden_pyarrow() -> None:
    """Afterwards no Parquet file can make pyarrow unpickle (CVE-2023-47248: TFDV pins a pyarrow that would)."""
    if find_spec("pyarrow_hotfix") is not None:
        import pyarrow_hotfix  # noqa: F401


def read_frame(snapshot: Artifact[Snapshot], split: SplitName) -> "pd.DataFrame":
    """The rows of a split as they were delivered, with their label."""
    import pandas as pd

    harden_pyarrow()
    return pd.read_parquet(snapshot.open(f"{split}.parquet"))


class StoredColumns:
    """A Parquet file as a table of which one column at a time is in memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        import pyarrow.parquet as pq

        harden_pyarrow()
        self._file = pq.ParquetFile(stream, buffer_size=_BUFFER)
        self.columns: tuple[str, ...] = tuple(self._file.schema_arrow.names)

    def __getitem__(self, name: str) -> "pd.Series[Any]":
        return self._file.read(columns=[name], use_threads=False).to_pandas()[name]


def frame_blocks(stream: IO[bytes]) -> Iterator["pd.DataFrame"]:
    """The rows of a Parquet file, at most `BLOCK_CELLS` cells at a time; at least one block."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    harden_pyarrow()
    file = pq.ParquetFile(stream, buffer_size=_BUFFER)
    rows = max(BLOCK_CELLS // max(file.metadata.num_columns, 1), 1)
    if file.metadata.num_rows == 0:
        yield file.read().to_pandas()
    for batch in file.iter_batches(batch_size=rows, use_threads=False):
        yield pa.Table.from_batches([batch]).to_pandas()


def chosen_rows(stream: IO[bytes], rows: NDArray[np.int64]) -> "pd.DataFrame":
    """Some rows of a Parquet file, in the order of the file; `rows` are ascending."""
    import pandas as pd

    found, start = [], 0
    for block in frame_blocks(stream):
        here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(block))]
        found.append(block.iloc[here - start].set_axis(here))
        start += len(block)
    return pd.concat(found)


def class_indices(frame: "pd.DataFrame | StoredColumns", snapshot: Artifact[Snapshot]) -> NDArray[np.int64]:
    """The classes int64[N] of rows.

    Raises:
        InputError: a class that the snapshot does not have.
    """
    document = snapshot.document
    names: Sequence[str] = frame[document.label].astype(str).tolist()
    index = {name: i for i, name in enumerate(document.classes)}
    unknown = sorted(set(names) - set(index))
    if unknown:
        raise InputError(f"{snapshot.folder}: expected the classes {list(document.classes)}, found {unknown[0]!r}")
    return np.array([index[name] for name in names], dtype=np.int64)
