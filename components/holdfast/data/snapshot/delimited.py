"""CSV and TSV, read strictly: what other readers guess at (short rows, doubled names) is refused here.

CSV follows RFC 4180 (quotes may hold commas and line breaks). In TSV a quote is a character like any other, as in the
IANA registration of text/tab-separated-values: messages hold quotes that are never closed.

Files are read in batches of rows, by Arrow's reader where it cannot differ from Python's (`blocks`), else by Python's.
"""

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Literal

import numpy as np

from holdfast.artifacts.verified import FileContent, open_content
from holdfast.data.snapshot.blocks import RowBlock, UnusualFileError, blocks
from holdfast.data.snapshot.coded import Cells, Coded
from holdfast.data.snapshot.columnar import Batch, gather, gather_texts
from holdfast.data.snapshot.dialect import (
    SAMPLED_CHARACTERS,
    SAMPLED_ROWS,
    UNKNOWN,
    Dialect,
    check_encoding,
    encoding_of,
    find_decimal,
    find_delimiter,
    recorded,
)
from holdfast.data.snapshot.numbers import DecimalMark
from holdfast.data.snapshot.rows import Part
from holdfast.errors import HoldfastError, InputError, LimitError
from holdfast.modality.cells import spelt
from holdfast.tables import check_names

if TYPE_CHECKING:
    import pyarrow as pa

MAX_FIELD = 2**20
_ROWS = 2**14
_PIECE = 2**22
_Rows = Iterator[tuple[int, list[str]]]
"""Rows with the line on which each begins."""


@dataclass(frozen=True)
class _Source:
    """A file that can be read several times: all columns, or some of them."""

    content: FileContent
    kind: Literal["csv", "tsv"]
    name: str
    columns: Sequence[str] | None
    stated: Dialect
    encoding: str
    strict: bool = False
    """Whether Python's reader is asked: it takes what Arrow's could misread, and has the words for what is wrong."""


@dataclass(frozen=True)
class _Rowset:
    """The names of all columns of a file, how they are delimited, and the rows of the columns that were asked for."""

    names: tuple[str, ...]
    delimiter: str
    batches: Iterator[Batch]


def read_delimited(
    content: FileContent,
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
    with open_content(content) as stream:
        encoding = encoding_of(stream.read(4), stated.encoding)
    source = _Source(content, kind, name, columns, stated, encoding)
    try:
        return _part(source, drop, codes)
    except (UnusualFileError, HoldfastError):
        return _part(replace(source, strict=True), drop, codes)


def _part(source: _Source, drop: Sequence[str], codes: Sequence[str]) -> Part:
    rowset = _open(source, drop)
    first = next(rowset.batches, None)
    if first is None:
        raise InputError(f"{source.name}: expected data below the header, found the header only")
    decimal = source.stated.decimal or _decimal(first, codes, source.name, rowset.delimiter)
    expected = _expected_rows(source, first)
    found = gather(chain([first], rowset.batches), decimal=decimal, texts=frozenset(codes), expected=expected)
    usual = Dialect("\t" if source.kind == "tsv" else ",", ".", "utf-8")
    return Part(
        source.name,
        Cells(found.names, found.texts, partial(_read_again, source, drop)),
        lines=found.lines,
        dropped=frozenset(rowset.names) & frozenset(drop),
        decimal=decimal,
        read_as=_read_as(Dialect(rowset.delimiter, decimal, recorded(source.encoding)), usual),
        numbers=found.numbers,
        rows=len(found.lines),
    )


def _read_again(source: _Source, drop: Sequence[str], column: str) -> Mapping[str, Coded]:
    """The texts of one column, or of all columns of a file in memory."""
    in_memory = isinstance(source.content, bytes)
    return gather_texts(_open(source, drop, None if in_memory else column).batches)


def _decimal(first: Batch, codes: Sequence[str], name: str, delimiter: str) -> DecimalMark:
    """From the first rows; only where some cell has a comma at all."""
    samples = {column: texts[:SAMPLED_ROWS] for column, texts in first.columns.items() if column not in codes}
    if not any(_has_comma(texts) for texts in samples.values()):
        return "."
    cells = {column: np.array(texts.to_pylist(), dtype=object) for column, texts in samples.items()}
    return find_decimal(cells, name, delimiter)


def _has_comma(texts: "pa.Array") -> bool:
    import pyarrow.compute as pc

    return bool(pc.any(pc.match_substring(texts, ",")).as_py())


def _expected_rows(source: _Source, first: Batch) -> int:
    """A little more than the file has, if all its rows are as long as the first ones."""
    lines = max(int(first.lines[-1] - first.lines[0]), 1)
    return int(1.1 * len(first.lines) * max(len(source.content) / max(first.size, 1), 1)) + lines


def _open(source: _Source, drop: Sequence[str] = (), only: str | None = None) -> _Rowset:
    return (_open_strictly if source.strict else _open_quickly)(source, drop, only)


def _kept(names: Sequence[str], drop: Sequence[str], only: str | None) -> list[int]:
    return [index for index, name in enumerate(names) if name not in drop and only in (None, name)]


# --- by Arrow -------------------------------------------------------------------------------------------------------


def _open_quickly(source: _Source, drop: Sequence[str], only: str | None) -> _Rowset:
    delimiter = "\t" if source.kind == "tsv" else source.stated.delimiter
    if delimiter is None:
        delimiter = find_delimiter(_first_text(source), source.name, source.columns)
    found = blocks(open_content(source.content), source.encoding, delimiter, quotes=source.kind == "csv")
    first = next(found, None)
    if first is None:
        raise UnusualFileError
    rows = chain([first], found)
    names = source.columns
    if names is None:
        header, rest = first.without_header()
        names, rows = _names(header, source, delimiter), chain([rest], found)
    check_names(names, source.name)
    kept = [names[index] for index in _kept(names, drop, only)]
    batches = (_parse(block, tuple(names), kept, delimiter, quotes=source.kind == "csv") for block in rows)
    return _Rowset(tuple(names), delimiter, (batch for batch in batches if len(batch.lines)))


def _first_text(source: _Source) -> str:
    """One character more than a delimiter is found from, where the file has it."""
    with open_content(source.content) as stream:
        head = stream.read(4 * SAMPLED_CHARACTERS + 8)
    try:
        text = codecs.getincrementaldecoder(source.encoding)().decode(head, final=len(head) == len(source.content))
    except UnicodeDecodeError:
        raise UnusualFileError from None
    return text.removeprefix("\ufeff")[: SAMPLED_CHARACTERS + 1]


def _names(header: bytes, source: _Source, delimiter: str) -> list[str]:
    text = io.StringIO(header.decode(), newline="")
    rows = _csv_rows(text, source.name, delimiter) if source.kind == "csv" else _tsv_rows(text)
    return [spelt(cell) for cell in next(rows)[1]]


def _parse(block: RowBlock, names: Sequence[str], kept: Sequence[str], delimiter: str, *, quotes: bool) -> Batch:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if len(block.starts) == 0:
        return Batch({name: pa.array([], pa.string()) for name in kept}, block.lines, 0)
    quoting = {"quote_char": '"' if quotes else False, "newlines_in_values": block.quoted}
    convert = {"include_columns": kept, "column_types": dict.fromkeys(kept, pa.string()), "strings_can_be_null": False}
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(block.data),
            arrow_csv.ReadOptions(column_names=names, block_size=max(2 * block.longest(), _PIECE)),
            arrow_csv.ParseOptions(delimiter=delimiter, double_quote=quotes, **quoting),
            arrow_csv.ConvertOptions(**convert),
        )
    except pa.ArrowInvalid:
        raise UnusualFileError from None
    if len(table) != len(block.starts):
        raise UnusualFileError
    texts = {name: _whole(table.column(name)) for name in kept}
    if block.longest() > csv.field_size_limit():
        _refuse_long(texts.values())
    return Batch(texts, block.lines, len(block.data))


def _whole(column: "pa.ChunkedArray") -> "pa.Array":
    import pyarrow as pa

    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _refuse_long(columns: Iterable["pa.Array"]) -> None:
    import pyarrow.compute as pc

    if any(pc.max(pc.binary_length(texts)).as_py() > csv.field_size_limit() for texts in columns):
        raise UnusualFileError


# --- by Python ------------------------------------------------------------------------------------------------------


def _open_strictly(source: _Source, drop: Sequence[str], only: str | None) -> _Rowset:
    if isinstance(source.content, bytes) and not source.content.strip():
        raise InputError(f"{source.name}: expected a header row and data, found an empty file")
    with open_content(source.content) as stream:
        check_encoding(stream, source.name, source.encoding)
    delimiter = "\t" if source.kind == "tsv" else source.stated.delimiter
    delimiter = delimiter or find_delimiter(_first_text(source), source.name, source.columns)
    text = _text(source)
    rows = _csv_rows(text, source.name, delimiter) if source.kind == "csv" else _tsv_rows(text)
    names, rows = _header(rows, source.name, source.columns)
    kept = _kept(names, drop, only)
    checked = _checked(rows, len(names), source.name, kept)
    return _Rowset(tuple(names), delimiter, _batches(checked, [names[index] for index in kept]))


def _text(source: _Source) -> IO[str]:
    """The file as text, without a byte order mark, line ends as they are."""
    newline = "" if source.kind == "csv" else "\n"
    text = io.TextIOWrapper(open_content(source.content), encoding=source.encoding, newline=newline)
    if text.read(1) != "\ufeff":
        text.seek(0)
    return text


def _batches(rows: _Rows, names: Sequence[str]) -> Iterator[Batch]:
    import pyarrow as pa

    while some := list(islice(rows, _ROWS)):
        columns = zip(*(row for _, row in some), strict=True)
        texts = {name: pa.array(cells, pa.string()) for name, cells in zip(names, columns, strict=True)}
        size = sum(len(cell) + 1 for _, row in some for cell in row)
        yield Batch(texts, np.array([line for line, _ in some], dtype=np.int64), size)


def _header(rows: _Rows, name: str, columns: Sequence[str] | None) -> tuple[list[str], _Rows]:
    """The names of the columns, and the rows below them."""
    first, header = next(rows, (0, None))
    if header is None:
        raise InputError(f"{name}: expected a header row and data, found an empty file")
    names = list(columns) if columns is not None else [spelt(cell) for cell in header]
    check_names(names, name)
    return names, rows if columns is None else chain([(first, header)], rows)


def _csv_rows(text: IO[str], name: str, delimiter: str) -> _Rows:
    reader = csv.reader(text, delimiter=delimiter, strict=True)
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


def _tsv_rows(text: IO[str]) -> _Rows:
    for number, ended in enumerate(text, start=1):
        line = ended.removesuffix("\n")
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
