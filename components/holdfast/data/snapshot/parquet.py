"""Parquet, read within a limit: types are checked in the footer, strings are counted before they are spread out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import InputError, LimitError
from holdfast.tables import check_names

Columns = dict[str, NDArray[Any]]
"""Column name -> float64[rows] with NaN for missing, or object[rows] of `str`, `bool` and None."""
_BATCH = 65_536
_POINTER = 8


def read_parquet(data: bytes, *, name: str, max_bytes: int) -> Columns:
    """The columns of a Parquet file.

    Raises:
        InputError: not a whole Parquet file, no rows, a column twice or of a type that is no number, bool or string.
        LimitError: decoded it would take more than `max_bytes`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from holdfast.modality.frames import harden_pyarrow

    harden_pyarrow()
    try:
        schema = pq.ParquetFile(pa.BufferReader(data)).schema_arrow
        _check_types(schema, name)
        texts = [field.name for field in schema if _is_text(field.type)]
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
        names = [column for column in schema.names if not column.startswith("__index_level_")]
        if file.metadata.num_rows * len(names) * _POINTER > max_bytes:
            raise _too_large(name, max_bytes)
        return _read(file, names, name=name, max_bytes=max_bytes)
    except (pa.ArrowException, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise InputError(f"{name}: expected a whole Parquet file, found {first}") from None


def _read(file: Any, names: Sequence[str], *, name: str, max_bytes: int) -> Columns:
    parts: dict[str, list[NDArray[Any]]] = {column: [] for column in names}
    decoded = 0
    for batch in file.iter_batches(batch_size=_BATCH, columns=list(names), use_threads=False):
        for column, array in zip(batch.schema.names, batch.columns, strict=True):
            decoded += _decoded_bytes(array)
            if decoded > max_bytes:
                raise _too_large(name, max_bytes)
            parts[column].append(_values(array))
    if not any(parts.values()):
        raise InputError(f"{name}: expected rows, found none")
    return {column: np.concatenate(arrays) for column, arrays in parts.items()}


def _decoded_bytes(array: Any) -> int:
    """The memory that a column takes once every string is a separate object."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(array.type):
        return len(array) * _POINTER
    lengths = pc.fill_null(pc.binary_length(array.dictionary).cast(pa.int64()), 0)
    total = pc.sum(pc.take(lengths, array.indices)).as_py() if len(array.dictionary) else 0
    return int(total or 0) + len(array) * _POINTER


def _values(array: Any) -> NDArray[Any]:
    import pyarrow as pa

    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
    elif not pa.types.is_boolean(kind):
        array = array.cast(pa.float64(), safe=False)
    if pa.types.is_floating(array.type):
        return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)
    values = np.empty(len(array), dtype=object)
    values[:] = array.to_pylist()
    return values


def _check_types(schema: Any, name: str) -> None:
    import pyarrow as pa

    check_names(schema.names, name)
    for field in schema:
        kind = field.type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if not (number or pa.types.is_boolean(kind) or _is_text(kind)):
            raise InputError(f"{name}: column {field.name!r}: expected numbers, bools or strings, found {kind}")


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _too_large(name: str, max_bytes: int) -> LimitError:
    return LimitError(f"{name}: expected at most {max_bytes} bytes when decoded (data.max_bytes), found more")
