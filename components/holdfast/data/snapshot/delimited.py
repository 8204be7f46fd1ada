"""CSV and TSV, read strictly: what other readers guess at (encoding, short rows, doubled names) is refused here.

CSV follows RFC 4180 (quotes may hold commas and line breaks). In TSV a quote is a character like any other, as in the
IANA registration of text/tab-separated-values: messages hold quotes that are never closed.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import InputError, LimitError
from holdfast.tables import check_names

Cells = dict[str, NDArray[np.object_]]
"""Column name -> its cells as `str`, object[rows]."""
MAX_FIELD = 2**20


def read_delimited(
    data: bytes, kind: Literal["csv", "tsv"], *, name: str, columns: Sequence[str] | None = None
) -> Cells:
    """The cells of a file, by column. The first row names the columns unless `columns` does; empty lines are skipped.

    Raises:
        InputError: empty, header only, not UTF-8, a NUL byte, a row with more or fewer cells than columns, a column
            twice, or quotes that do not close.
        LimitError: a cell is longer than a mebibyte.
    """
    text = _text(data, name)
    rows = _csv_rows(text, name) if kind == "csv" else _tsv_rows(text)
    first, header = next(rows, (0, None))
    if header is None:
        raise InputError(f"{name}: expected a header row and data, found an empty file")
    names = list(columns) if columns is not None else [cell.strip() for cell in header]
    check_names(names, name)
    if columns is not None:
        rows = chain([(first, header)], rows)
    body = list(_checked(rows, len(names), name))
    if not body:
        raise InputError(f"{name}: expected data below the header, found the header only")
    return {column: np.array(cells, dtype=object) for column, cells in zip(names, zip(*body, strict=True), strict=True)}


def _text(data: bytes, name: str) -> str:
    if not data.strip():
        raise InputError(f"{name}: expected a header row and data, found an empty file")
    nul = data.find(b"\0")
    if nul >= 0:
        raise InputError(f"{name}: expected text, found a NUL byte at offset {nul}")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: expected UTF-8, found byte {data[error.start]:#04x} at offset {error.start}"
        ) from None


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        if "field limit" in str(error):
            raise LimitError(
                f"{name}: line {reader.line_num}: expected cells up to {csv.field_size_limit()} characters, found more"
            ) from None
        raise InputError(f"{name}: line {reader.line_num}: expected CSV, found {error}") from None


def _tsv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip("\r"):
            yield number, line.removesuffix("\r").split("\t")


def _checked(rows: Iterator[tuple[int, list[str]]], width: int, name: str) -> Iterator[list[str]]:
    for line, row in rows:
        if len(row) != width:
            raise InputError(f"{name}: line {line}: expected {width} cells, found {len(row)}")
        if max(map(len, row)) > MAX_FIELD:
            raise LimitError(f"{name}: line {line}: expected cells up to {MAX_FIELD} characters, found more")
        yield row
