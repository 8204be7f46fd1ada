import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.data.snapshot.parquet import read_parquet
from holdfast.errors import InputError, LimitError


def packed(columns: dict[str, Any], **more: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, **more)
    return stream.getvalue()


def read(data: bytes, max_bytes: int = 2**24) -> dict[str, Any]:
    return dict(read_parquet(data, name="data.parquet", max_bytes=max_bytes).cells)


def test_numbers_bools_and_strings_come_back() -> None:
    found = read(packed({"n": [1, 2, None], "f": [0.5, 1.5, 2.5], "b": [True, False, None], "s": ["a", None, "c"]}))
    np.testing.assert_array_equal(found["n"], [1, 2, np.nan])
    np.testing.assert_array_equal(found["f"], [0.5, 1.5, 2.5])
    assert found["b"].tolist() == [True, False, None]
    assert found["s"].tolist() == ["a", None, "c"]


def test_dictionary_columns_are_strings() -> None:
    assert read(packed({"s": pa.array(["a", "b", "a"]).dictionary_encode()}))["s"].tolist() == ["a", "b", "a"]


def test_fifty_million_equal_rows_are_refused_by_the_footer() -> None:
    # Run-length encoding makes them a few bytes; the footer's own size says nothing.
    rows = 5_000_000
    data = packed({"x": pa.array(np.zeros(rows))})
    assert len(data) < 2**16
    with pytest.raises(LimitError, match="expected at most 16777216 bytes when decoded"):
        read(data)


def test_long_strings_that_repeat_are_counted_before_they_are_spread_out() -> None:
    data = packed({"s": pa.DictionaryArray.from_arrays(np.zeros(5000, np.int32), ["x" * 2**20])})
    assert len(data) < 2**22
    with pytest.raises(LimitError, match="expected at most 16777216 bytes when decoded"):
        read(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not parquet", "expected a whole Parquet file, found"),
        (packed({"x": [1.0, 2.0]})[:-20], "expected a whole Parquet file, found"),
        (packed({"x": pa.array([], pa.float64())}), "expected rows, found none"),
        (packed({"x": [[1], [2]]}), "column 'x': expected numbers, bools or strings, found list"),
        (packed({"x": [b"1", b"2"]}), "column 'x': expected numbers, bools or strings, found binary"),
    ],
)
def test_another_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(data)


def test_a_column_that_stands_twice_is_refused() -> None:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]), stream)
    with pytest.raises(InputError, match="expected each column once, found 'x' more than once"):
        read(stream.getvalue())
