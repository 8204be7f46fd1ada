"""A delimited file as blocks of whole rows in UTF-8, with the line on which each row begins.

Rows are cut where the csv module cuts them. What another reader could take for something else is not cut but refused
with `UnusualFileError`: the strict reader of `delimited` decides then.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.dialect import SAMPLED_ROWS

BLOCK_BYTES = 2**24
_LONGEST = 2**28
_NEWLINE, _RETURN, _QUOTE = b'\n\r"'


class UnusualFileError(Exception):
    """Quotes inside cells, lone carriage returns, NULs: only the strict reader knows what they mean here."""


@dataclass(frozen=True)
class RowBlock:
    """Whole rows: their bytes, where each row that is not empty begins, and on which line of the file."""

    data: memoryview
    starts: NDArray[np.int64]
    lines: NDArray[np.int64]
    quoted: bool

    def longest(self) -> int:
        """Bytes of the longest row, at most."""
        return int(np.diff(self.starts, append=len(self.data)).max(initial=0))

    def without_header(self) -> tuple[bytes, "RowBlock"]:
        """The bytes of the first row, and the rows below it."""
        end = int(self.starts[1]) if len(self.starts) > 1 else len(self.data)
        rest = RowBlock(self.data[end:], self.starts[1:] - end, self.lines[1:], self.quoted)
        return bytes(self.data[int(self.starts[0]) : end]), rest


def blocks(stream: IO[bytes], encoding: str, delimiter: str, *, quotes: bool) -> Iterator[RowBlock]:
    """Blocks of whole rows; the first one holds as many as a dialect is found from, where the file has them.

    Raises:
        UnusualFileError: the strict reader must decide.
    """
    line = 1
    for data in _cut(stream, encoding, SAMPLED_ROWS, quotes=quotes):
        block = _block(data, line, delimiter, quotes=quotes)
        line += data.count(b"\n")
        if len(block.starts):
            yield block


def _cut(stream: IO[bytes], encoding: str, first_rows: int, *, quotes: bool) -> Iterator[bytes]:
    """Runs of whole rows; at least `first_rows` of them in the first run."""
    pending = b""
    for more in _utf8(stream, encoding):
        pending += more
        if len(pending) > _LONGEST:
            raise UnusualFileError
        ends = _row_ends(pending, quotes=quotes)
        if len(ends) > first_rows:
            first_rows, end = 0, int(ends[-1]) + 1
            yield pending[:end]
            pending = pending[end:]
    if pending:
        yield pending


def _utf8(stream: IO[bytes], encoding: str) -> Iterator[bytes]:
    """The text without a byte order mark, in UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)()
    first = True
    while chunk := stream.read(BLOCK_BYTES):
        yield _recoded(chunk, encoding, decoder, first=first)
        first = False
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise UnusualFileError from None


def _recoded(chunk: bytes, encoding: str, decoder: codecs.IncrementalDecoder, *, first: bool) -> bytes:
    if encoding == "utf-8" and chunk.isascii() and not decoder.getstate()[0]:
        return chunk
    try:
        text = decoder.decode(chunk)
        return (text.removeprefix("\ufeff") if first else text).encode()
    except UnicodeError:
        raise UnusualFileError from None


def _block(data: bytes, line: int, delimiter: str, *, quotes: bool) -> RowBlock:
    if b"\0" in data or data.count(b"\r") != data.count(b"\r\n"):
        raise UnusualFileError
    marks = _positions(data, _QUOTE) if quotes else np.empty(0, dtype=np.int64)
    if len(marks):
        _check_quotes(np.frombuffer(data, dtype=np.uint8), marks, ord(delimiter))
    newlines = _positions(data, _NEWLINE)
    starts = np.concatenate([[0], _outside(newlines, marks) + 1]).astype(np.int64)
    starts = starts[_filled(data, starts)]
    lines = line + np.searchsorted(newlines, starts)
    return RowBlock(memoryview(data), starts, lines, bool(len(marks)))


def _row_ends(data: bytes, *, quotes: bool) -> NDArray[np.int64]:
    """The line feeds that end a row."""
    marks = _positions(data, _QUOTE) if quotes and b'"' in data else np.empty(0, dtype=np.int64)
    return _outside(_positions(data, _NEWLINE), marks)


def _outside(positions: NDArray[np.int64], quotes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The positions that have an even number of quotes before them."""
    return positions[np.searchsorted(quotes, positions) % 2 == 0] if len(quotes) else positions


def _filled(data: bytes, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a row begins there that is not empty."""
    if len(starts) == 0 or starts[-1] > len(data):
        raise UnusualFileError
    padded = np.frombuffer(data + b"\n\n", dtype=np.uint8)
    here, after = padded[starts], padded[starts + 1]
    return np.asarray((here != _NEWLINE) & ~((here == _RETURN) & (after == _NEWLINE)))


def _check_quotes(data: NDArray[np.uint8], quotes: NDArray[np.int64], delimiter: int) -> None:
    """Every quote begins a cell, ends one, or is one of two in a row within one."""
    if len(quotes) % 2:
        raise UnusualFileError
    opening, closing = quotes[::2], quotes[1::2]
    padded = np.concatenate([[_NEWLINE], data, [_NEWLINE]]).astype(np.uint8)
    border = np.zeros(256, dtype=bool)
    border[[delimiter, _NEWLINE, _RETURN, _QUOTE]] = True
    doubled = np.concatenate([[False], opening[1:] == closing[:-1] + 1])
    before, after = padded[opening], padded[closing + 2]
    begins = doubled | (border[before] & (before != _QUOTE))
    if not begins.all() or not border[after].all():
        raise UnusualFileError


def _positions(data: bytes, byte: int) -> NDArray[np.int64]:
    return np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == byte)
