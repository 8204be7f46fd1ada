"""How a delimited text is written: encoding, delimiter, decimal mark. What could be two things is refused."""

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from numpy.typing import NDArray

from holdfast.data.snapshot.listing import quoted
from holdfast.data.snapshot.numbers import DecimalMark, has_comma, is_number, with_point
from holdfast.errors import InputError
from holdfast.modality.cells import is_missing

DELIMITERS = (",", ";", "\t", "|")
_SAMPLE = 2**16
_ROWS = 1000
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
"""12,345: twelve thousand to some, twelve and a bit to others."""


@dataclass(frozen=True)
class Dialect:
    """What is stated by the workload or found; None: not known yet."""

    delimiter: str | None = None
    decimal: DecimalMark | None = None
    encoding: str | None = None


UNKNOWN = Dialect()


def decode(data: bytes, name: str, stated: str | None) -> tuple[str, str]:
    """The text and its encoding: the stated one, that of the byte order mark, or UTF-8.

    Raises:
        InputError: a byte that is not of that encoding, or a NUL.
    """
    encoding = stated or next((kind for mark, kind in _MARKS if data.startswith(mark)), "utf-8")
    if encoding in ("utf-8", "utf-8-sig") and (nul := data.find(b"\0")) >= 0:
        raise InputError(f"{name}: expected text, found a NUL byte at offset {nul}; another encoding? (data.encoding)")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(_undecodable(data, name, encoding, error)) from None
    if (nul := text.find("\0")) >= 0:
        raise InputError(f"{name}: expected text, found a NUL at character {nul}; another encoding? (data.encoding)")
    return text.removeprefix("\ufeff"), "utf-8" if encoding == "utf-8-sig" else encoding


def find_delimiter(text: str, name: str, columns: Sequence[str] | None) -> str:
    """The delimiter with which all of the first rows have the same number of cells, more than one; else the comma.

    Raises:
        InputError: several do.
    """
    found = [delimiter for delimiter in DELIMITERS if _fits(text, delimiter, columns)]
    if len(found) > 1:
        raise InputError(
            f"{name}: expected one delimiter, found that {quoted(found)} all fit; name it in data.delimiter"
        )
    return found[0] if found else ","


def find_decimal(cells: Mapping[str, NDArray[Any]], name: str, delimiter: str) -> DecimalMark:
    """The mark before the fractions of `cells`, from the first thousand rows.

    Raises:
        InputError: decimal commas in a file that is delimited by commas, together with points, or that could be marks
            between thousands.
    """
    samples = {column: _sample(values) for column, values in cells.items()}
    commas = [column for column, texts in samples.items() if _has_commas(texts)]
    if not commas:
        return "."
    texts = [text for text in samples[commas[0]] if has_comma(text)]
    shown = f"column {commas[0]!r}: expected a decimal point, found decimal commas ({quoted(texts)})"
    asked = f'data.decimal: ",", or data.columns_as: {{{commas[0]}: category}}'
    points = [column for column, sample in samples.items() if _has_points(sample)]
    if points:
        raise InputError(f"{name}: {shown} and points in column {points[0]!r}; {asked}")
    if delimiter == ",":
        raise InputError(f"{name}: {shown}; {asked}")
    if all(_GROUPED.fullmatch(text) for column in commas for text in samples[column] if "," in text):
        raise InputError(f"{name}: {shown}, which could also stand between thousands; {asked}")
    return ","


def _undecodable(data: bytes, name: str, encoding: str, error: UnicodeDecodeError) -> str:
    expected = "UTF-8" if encoding.startswith("utf-8") else encoding
    line = data.count(b"\n", 0, error.start) + 1
    byte = f"byte {data[error.start]:#04x} at offset {error.start}" if error.start < len(data) else "its end too early"
    hint = "name the file's encoding in data.encoding, such as latin-1 or cp1252"
    return f"{name}: expected {expected}, found {byte} (line {line}); {hint}"


def _fits(text: str, delimiter: str, columns: Sequence[str] | None) -> bool:
    if delimiter not in text[:_SAMPLE]:
        return False
    try:
        reader = csv.reader(io.StringIO(text[:_SAMPLE], newline=""), delimiter=delimiter)
        rows = [len(row) for row in islice(reader, _ROWS) if row]
    except csv.Error:
        return False
    if len(text) > _SAMPLE and len(rows) > 1:
        rows.pop()  # it may be cut
    wanted = len(columns) if columns is not None else rows[0] if rows else 0
    return wanted > 1 and all(width == wanted for width in rows)


def _sample(values: NDArray[Any]) -> list[str]:
    texts = dict.fromkeys(str(value).strip().lower() for value in values[:_ROWS])
    return [text for text in texts if not is_missing(text)]


def _has_commas(texts: Sequence[str]) -> bool:
    return any(map(has_comma, texts)) and all(is_number(with_point(text)) for text in texts)


def _has_points(texts: Sequence[str]) -> bool:
    return any("." in text for text in texts) and all(is_number(text) for text in texts)
