"""CSV and TSV, read strictly: what other readers guess at (short rows, doubled names) is refused here.

CSV follows RFC 4180 (quotes may hold commas and line breaks). In TSV a quote is a character like any other, as in the
IANA registration of text/tab-separated-values: messages hold quotes that are never closed.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Literal

import numpy as np

from holdfast.data.snapshot.dialect import UNKNOWN, Dialect, decode, find_decimal, find_delimiter
from holdfast.data.snapshot.rows import Part
from holdfast.errors import InputError, LimitError
from holdfast.modality.cells import spelt
from holdfast.tables import check_names

MAX_FIELD = 2**20
_Rows = Iterator[tuple[int, list[str]]]
"""Rows with the line on which each begins."""


def read_delimited(
    data: bytes,
    kind: Literal["csv", "tsv"],
    *,
    name: str,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    codes: Sequence[str] = (),
    stated: Dialect = UNKNOWN,
) -> Part:
    """The cells of a file, by column, `str` each.

    The first row names the columns unless `columns` does; empty lines are skipped, and so are the columns in `drop`.
    `codes` names columns that hold no numbers.

    Raises:
        InputError: empty, header only, another encoding, a NUL, a row with more or fewer cells than columns, a column
            twice, quotes that do not close, or a delimiter or decimal mark that could be several.
        LimitError: a cell is longer than a mebibyte.
    """
    if not data.strip():
        raise InputError(f"{name}: expected a header row and data, found an empty file")
    text, encoding = decode(data, name, stated.encoding)
    delimiter = "\t" if kind == "tsv" else stated.delimiter or find_delimiter(text, name, columns)
    rows = _csv_rows(text, name, delimiter) if kind == "csv" else _tsv_rows(text)
    names, rows = _header(rows, name, columns)
    kept = [index for index, column in enumerate(names) if column not in drop]
    body = list(_checked(rows, len(names), name, kept))
    if not body:
        raise InputError(f"{name}: expected data below the header, found the header only")
    cells = {
        names[index]: np.array(values, dtype=object)
        for index, values in zip(kept, zip(*(row for _, row in body), strict=True), strict=True)
    }
    decimal = stated.decimal or find_decimal({c: v for c, v in cells.items() if c not in codes}, name, delimiter)
    return Part(
        name,
        cells,
        lines=np.array([line for line, _ in body], dtype=np.int64),
        dropped=frozenset(names) & frozenset(drop),
        decimal=decimal,
        read_as=_read_as(Dialect(delimiter, decimal, encoding), Dialect("\t" if kind == "tsv" else ",", ".", "utf-8")),
    )


def _header(rows: _Rows, name: str, columns: Sequence[str] | None) -> tuple[list[str], _Rows]:
    """The names of the columns, and the rows below them."""
    first, header = next(rows, (0, None))
    if header is None:
        raise InputError(f"{name}: expected a header row and data, found an empty file")
    names = list(columns) if columns is not None else [spelt(cell) for cell in header]
    check_names(names, name)
    return names, rows if columns is None else chain([(first, header)], rows)


def _csv_rows(text: str, name: str, delimiter: str) -> _Rows:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        if "field limit" in str(error):
            raise LimitError(
                f"{name}: line {line}: expected cells up to {csv.field_size_limit()} characters, found more"
            ) from None
        raise InputError(f"{name}: line {line}: expected CSV, found {error}") from None


def _tsv_rows(text: str) -> _Rows:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip("\r"):
            yield number, line.removesuffix("\r").split("\t")


def _checked(rows: _Rows, width: int, name: str, kept: Sequence[int]) -> _Rows:
    everything = len(kept) == width
    for line, row in rows:
        if len(row) != width:
            raise InputError(f"{name}: line {line}: expected {width} cells, found {len(row)}")
        if max(map(len, row)) > MAX_FIELD:
            raise LimitError(f"{name}: line {line}: expected cells up to {MAX_FIELD} characters, found more")
        yield line, row if everything else [row[index] for index in kept]


def _read_as(found: Dialect, usual: Dialect) -> str | None:
    """What a snapshot records of how a file was read; None where all is as usual."""
    unusual = [
        f"{what} {one!r}"
        for what, one, other in zip(
            ("delimiter", "decimal mark", "encoding"),
            (found.delimiter, found.decimal, found.encoding),
            (usual.delimiter, usual.decimal, usual.encoding),
            strict=True,
        )
        if one != other
    ]
    return ", ".join(unusual) or None
