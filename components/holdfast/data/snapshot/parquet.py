"""Parquet, read within a limit: types are checked in the footer, strings are counted as if they were spread out."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.verified import FileContent, open_content
from holdfast.data.snapshot.coded import Cells, Growing, Values
from holdfast.data.snapshot.columnar import Texts
from holdfast.data.snapshot.parquet_pages import check_pages, too_large
from holdfast.data.snapshot.rows import Part
from holdfast.errors import InputError
from holdfast.modality.cells import spelt
from holdfast.tables import check_names
from holdfast.workload.schema import DeclaredKind

_BATCH = 65_536
_BUFFER = 2**20
_POINTER = 8
_EXACT = 2**53
"""Whole numbers up to it are float64."""


def read_parquet(content: FileContent, *, name: str, max_bytes: int, drop: Collection[str] = ()) -> Part:
    """The columns of a Parquet file without those in `drop`, which may be of any type.

    Numbers are float64[rows] with NaN for missing, or whole numbers of 64 bits; dates are seconds since 1970; bools,
    strings and whole numbers with gaps that a float64 cannot hold are object[rows] with None for missing (strings and
    bools are kept once each).

    Raises:
        InputError: not a whole Parquet file, no rows, a column twice or of a type that is not read.
        LimitError: decoded it would take more than `max_bytes`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from holdfast.modality.frames import harden_pyarrow

    harden_pyarrow()
    try:
        schema = pq.ParquetFile(_opened(content)).schema_arrow
        check_names(schema.names, name)
        kept = [field for field in schema if field.name not in drop and not field.name.startswith("__index_level_")]
        _check_types(kept, name)
        texts = [field.name for field in kept if _is_text(field.type)]
        file = pq.ParquetFile(_opened(content), read_dictionary=texts, buffer_size=_BUFFER)
        names = [field.name for field in kept]
        if file.metadata.num_rows * len(names) * _POINTER > max_bytes:
            raise too_large(name, max_bytes)
        check_pages(open_content(content), file.metadata, frozenset(names), name=name, most=max_bytes)
        columns = _read(file, names, name=name, max_bytes=max_bytes)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise InputError(f"{name}: expected a whole Parquet file, found {first}") from None
    kinds = {spelt(field.name): kind for field in kept if (kind := _kind(field.type)) is not None}
    columns = {spelt(column): values for column, values in columns.items()}
    rows, dropped = file.metadata.num_rows, frozenset(schema.names) & frozenset(drop)
    return Part(name, Cells(list(columns), columns), kinds=kinds, dropped=dropped, rows=rows)


def _opened(content: FileContent) -> Any:
    import pyarrow as pa

    return pa.BufferReader(content) if isinstance(content, bytes) else content.open()


def _read(file: Any, names: Sequence[str], *, name: str, max_bytes: int) -> dict[str, Values]:
    rows = file.metadata.num_rows
    if rows == 0:
        raise InputError(f"{name}: expected rows, found none")
    types = file.schema_arrow
    found = {column: _column(types.field(column).type, rows) for column in names}
    decoded = 0
    for batch in file.iter_batches(batch_size=_BATCH, columns=list(names), use_threads=False):
        for column, array in zip(batch.schema.names, batch.columns, strict=True):
            decoded += _decoded_bytes(array)
            if decoded > max_bytes:
                raise too_large(name, max_bytes)
            found[column].add(array)
    return {column: one.coded() if isinstance(one, Texts) else one.joined() for column, one in found.items()}


def _column(kind: Any, rows: int) -> "Texts | _Numbers":
    import pyarrow as pa

    return Texts(rows) if _is_text(kind) or pa.types.is_boolean(kind) else _Numbers(rows)


class _Numbers:
    """A column of numbers: one array while its batches are of one type."""

    def __init__(self, rows: int) -> None:
        self._rows, self._first = rows, True
        self._whole: Growing | None = None
        self._parts: list[NDArray[Any]] = []

    def add(self, array: Any) -> None:
        """Takes the cells of the next rows."""
        values = _values(array)
        if self._first:
            self._whole, self._first = Growing(values.dtype, self._rows), False
        if self._whole is not None and self._whole.dtype == values.dtype:
            self._whole.add(values)
            return
        if self._whole is not None:
            self._parts, self._whole = [self._whole.array()], None
        self._parts.append(values)

    def joined(self) -> NDArray[Any]:
        """All cells; batches of whole numbers with and without gaps stay exact."""
        return _joined(self._parts) if self._whole is None else self._whole.array()


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if not any(_inexact(array) for array in arrays):
        return np.concatenate(arrays)
    return np.concatenate([np.array([None if v != v else v for v in one.tolist()], dtype=object) for one in arrays])


def _inexact(array: NDArray[Any]) -> bool:
    if array.dtype.kind in "iu":
        return bool(len(array)) and max(-int(array.min()), int(array.max())) > _EXACT
    return array.dtype.kind == "O"


def _decoded_bytes(array: Any) -> int:
    """The memory that a column takes once every string is a separate object."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(array.type) or not _is_text(array.type):
        return len(array) * _POINTER
    lengths = pc.fill_null(pc.binary_length(array.dictionary).cast(pa.int64()), 0)
    total = pc.sum(pc.take(lengths, array.indices)).as_py() if len(array.dictionary) else 0
    return int(total or 0) + len(array) * _POINTER


def _values(array: Any) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_temporal(kind):
        return _seconds(array)
    if pa.types.is_decimal(kind) and kind.scale == 0:
        return _whole(array.to_pylist())
    if pa.types.is_integer(kind):
        return _whole(array.to_pylist()) if array.null_count else np.asarray(array.to_numpy(zero_copy_only=False))
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return np.asarray(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
    values = np.empty(len(array), dtype=object)
    values[:] = array.to_pylist()
    return values


def _whole(cells: Sequence[Any]) -> NDArray[Any]:
    """Whole numbers with gaps: float64 with NaN, or exact with None where that would change one."""
    if all(cell is None or abs(cell) <= _EXACT for cell in cells):
        return np.array([np.nan if cell is None else float(cell) for cell in cells])
    return np.array([None if cell is None else int(cell) for cell in cells], dtype=object)


def _seconds(array: Any) -> NDArray[np.float64]:
    """Timestamps, which Parquet keeps in UTC, and days, as seconds since 1970-01-01T00:00:00Z."""
    import pyarrow as pa

    moments = array.cast(pa.timestamp("us", tz=getattr(array.type, "tz", None)), safe=False)
    micros = moments.cast(pa.int64()).cast(pa.float64(), safe=False)
    return np.asarray(micros.to_numpy(zero_copy_only=False), dtype=np.float64) / 1e6


def _check_types(fields: Sequence[Any], name: str) -> None:
    import pyarrow as pa

    for field in fields:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if not (number or pa.types.is_boolean(kind) or _is_text(kind) or _is_date(kind)):
            raise InputError(
                f"{name}: column {field.name!r}: expected numbers, bools or strings, found {field.type}; "
                "columns in data.drop may be of any type"
            )


def _kind(kind: Any) -> DeclaredKind | None:
    """What the file's own type shows that cells do not: a string of digits is a code, and a timestamp is a date."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind) or _is_text(kind):
        return "category"
    return "datetime" if _is_date(kind) else None


def _is_date(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
