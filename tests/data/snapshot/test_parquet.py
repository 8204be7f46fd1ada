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


ROWS = 150_000


def lying(field: int, now: int | None) -> bytes:
    """A file whose first page has another number in the field 2 (size) or 5 (values) of its header."""
    how = {"use_dictionary": False, "compression": "gzip", "write_statistics": False, "data_page_size": 2**17}
    data = packed({"x": np.arange(float(ROWS))}, **how)
    place = 4 + 2  # behind the magic, and the field 1: a type and a byte
    if field == 5:
        place = data.index(b"\x2c\x15", place) + 1
    end = next(at for at in range(place + 1, len(data)) if data[at] < 0x80) + 1
    new = data[place + 1 : end] if now is None else varint(2 * now)
    assert len(new) == end - place - 1
    return data[: place + 1] + new + data[end:]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.parametrize("codec", ["gzip", "zstd", "snappy", "none"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_of_every_kind_are_walked(codec: str, version: str) -> None:
    columns = {"x": np.arange(20_000.0), "s": [f"{n:05}" for n in range(20_000)], "i": pa.array([1, None] * 10_000)}
    data = packed(columns, compression=codec, data_page_version=version, row_group_size=3_000, data_page_size=4096)
    assert read(data)["s"].tolist()[-1] == "19999"


def test_pages_that_become_more_than_the_limit_are_refused_before_they_are_unpacked() -> None:
    data = packed({"s": ["x" * 2**25]}, use_dictionary=False, compression="gzip", write_statistics=False)
    assert len(data) < 2**17
    with pytest.raises(LimitError, match="expected at most 16777216 bytes when decoded"):
        read(data)


def test_a_page_that_promises_more_than_the_footer_is_refused() -> None:
    assert len(read(lying(2, None), 1_900_000)["x"]) == ROWS
    with pytest.raises(LimitError, match="expected at most 1900000 bytes when decoded"):
        read(lying(2, 2**20 - 1), 1_900_000)


def test_a_page_with_more_values_than_rows_is_refused() -> None:
    with pytest.raises(InputError, match=r"column 'x': expected no more values than rows \(150000\), found more"):
        read(lying(5, 2**20 - 1))


def test_texts_that_are_no_utf8_are_refused() -> None:
    offsets, cells = np.arange(3, dtype=np.int32).tobytes(), b"\xff" * 2
    texts = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), pa.py_buffer(cells))
    with pytest.raises(InputError, match="expected a whole Parquet file, found 'utf-8' codec can't decode byte 0xff"):
        read(packed({"s": texts}))


def test_a_name_of_spaces_is_refused() -> None:
    with pytest.raises(InputError, match="expected a name for each column, found an empty one at 2"):
        read(packed({"a": [1.0], " ": [2.0]}))
