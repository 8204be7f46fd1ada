"""What a Parquet file's pages become when they are decompressed, by their headers, before any is.

The footer declares a size for each column, and every page one of its own, which decides what a reader asks the memory
for. The walk follows the pages of the columns that will be read. A header is a structure in Thrift's compact protocol:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift (PageHeader).
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import IO, Any

from holdfast.errors import InputError, LimitError

_HEAD = 2**12
_MOST_HEAD = 2**20
"""Of a page's header, which may hold a value or two as statistics."""
_DEPTH = 8
_DATA, _DICTIONARY, _DATA_V2 = 5, 7, 8
"""Fields of a page's header that hold another one, whose first field is the number of values."""


class _EndError(Exception):
    """The bytes end inside a header."""


@dataclass(frozen=True)
class _Page:
    header: int
    """Bytes."""
    unpacked: int
    packed: int
    values: int
    dictionary: bool


def check_pages(stream: IO[bytes], metadata: Any, names: Collection[str], *, name: str, most: int) -> None:
    """Refuses a file whose columns `names` become more than `most` bytes; messages call it `name`.

    Raises:
        InputError: a page that is not where the footer has it, or has more values than there are rows.
        LimitError: more bytes.
    """
    total = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group)
        for index in range(rows.num_columns):
            column = rows.column(index)
            if column.path_in_schema in names and column.num_values:
                total += _unpacked(stream, column, rows.num_rows, name, most)
            if total > most:
                raise too_large(name, most)


def too_large(name: str, most: int) -> LimitError:
    """The one message for a file that becomes too large."""
    return LimitError(f"{name}: expected at most {most} bytes when decoded (data.max_bytes), found more")


def _unpacked(stream: IO[bytes], column: Any, rows: int, name: str, most: int) -> int:
    """Bytes of all pages of a column in a row group."""
    starts = [column.data_page_offset, column.dictionary_page_offset if column.has_dictionary_page else None]
    place = min(start for start in starts if start is not None and (start > 0 or start == starts[0]))
    end, total = place + column.total_compressed_size, 0
    while place < end:
        page = _page_at(stream, place, column.path_in_schema, name)
        place += page.header + page.packed
        total += page.unpacked
        if min(page.packed, page.unpacked, page.values) < 0 or place > end:
            raise _misplaced(name, column.path_in_schema)
        if page.values > (8 * page.unpacked if page.dictionary else rows):
            raise InputError(
                f"{name}: column {column.path_in_schema!r}: expected no more values than rows ({rows}), found more"
            )
        if total > most:
            raise too_large(name, most)
    return total


def _page_at(stream: IO[bytes], place: int, column: str, name: str) -> _Page:
    asked = _HEAD
    while asked <= _MOST_HEAD:
        try:
            stream.seek(place)
            return _Header(stream.read(asked)).page()
        except _EndError:
            asked *= 16
        except (ValueError, OverflowError):
            break
    raise _misplaced(name, column)


def _misplaced(name: str, column: str) -> InputError:
    return InputError(
        f"{name}: column {column!r}: expected pages where the footer has them, found other bytes; the file is damaged "
        "or made up"
    )


class _Header:
    """Reads one structure; only whole numbers are kept."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def page(self) -> _Page:
        """The page that the structure describes."""
        fields = self._struct(0)
        inner = [fields[number] for number in (_DATA, _DICTIONARY, _DATA_V2) if number in fields]
        counts = [one[1] for one in inner if isinstance(one, dict)]
        return _Page(self._at, fields[2], fields[3], max(counts, default=0), _DICTIONARY in fields)

    def _struct(self, depth: int) -> dict[int, Any]:
        if depth > _DEPTH:
            raise ValueError("nested too deeply")
        found: dict[int, Any] = {1: 0, 2: -1, 3: -1}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._zigzag()
            found[number] = self._value(kind & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        match kind:
            case 1 | 2:  # of a field; true and false are in the type
                return None
            case 3:
                return self._skip(1)
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                return self._skip(8)
            case 8:
                return self._skip(self._varint())
            case 12:
                return self._struct(depth + 1)
        raise ValueError("a type that no page's header has")

    def _byte(self) -> int:
        self._skip(1)
        return self._data[self._at - 1]

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise _EndError

    def _varint(self) -> int:
        value, shift = 0, 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number without end")
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
