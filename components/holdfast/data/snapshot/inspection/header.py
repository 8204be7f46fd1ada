"""Files without a header row: how one is recognized, and names for its columns."""

import codecs
import csv
import io
from collections.abc import Sequence

from holdfast.data.snapshot.delivered import DeliveredFile
from holdfast.data.snapshot.dialect import encoding_of, find_delimiter, recorded
from holdfast.data.snapshot.numbers import is_number
from holdfast.errors import InputError

AUTO = "auto"
HINT = "the first row looks like data, not names: name the columns with --columns NAME,NAME,... or --columns auto"
_SENTENCE = 40
_SAMPLE = 2**16
_BYTES = 2**18
"""From which that many characters can be read."""


def column_names(asked: str, file: DeliveredFile) -> tuple[str, ...]:
    """The names in `asked`, separated by commas; `auto`: column_1, column_2, ...

    Raises:
        InputError: the file is no text, or in an encoding that its bytes do not show.
    """
    if asked != AUTO:
        return tuple(name.strip() for name in asked.split(","))
    return tuple(f"column_{number}" for number, _ in enumerate(first_row(file), start=1))


def looks_headless(file: DeliveredFile) -> bool:
    """Whether the first row of a CSV or TSV holds a number or a sentence, as names seldom do."""
    try:
        cells = first_row(file)
    except InputError:
        return False
    return any(is_number(cell.strip().lower()) or (len(cell) >= _SENTENCE and " " in cell) for cell in cells)


def first_row(file: DeliveredFile) -> Sequence[str]:
    """The cells of the first row of a CSV or TSV; none of another file.

    Raises:
        InputError: it is no text, or in an encoding that its bytes do not show.
    """
    if file.format not in ("csv", "tsv"):
        return ()
    text = beginning(file, None)[0]
    if file.format == "tsv":
        return text[:_SAMPLE].split("\n", 1)[0].rstrip("\r").split("\t")
    reader = csv.reader(io.StringIO(text[:_SAMPLE], newline=""), delimiter=find_delimiter(text, file.path, None))
    return next(reader, [])


def beginning(file: DeliveredFile, stated: str | None) -> tuple[str, str]:
    """The first characters of a CSV or TSV and its encoding: the stated one, else what its bytes show.

    Raises:
        InputError: it is no text, or in another encoding.
    """
    head = file.head(_BYTES)
    encoding = encoding_of(head, stated)
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError as error:
        found = f"found byte {head[error.start]:#04x} at offset {error.start}"
        raise InputError(f"{file.path}: expected {encoding}, {found}; another encoding? (data.encoding)") from None
    if "\0" in text:
        raise InputError(f"{file.path}: expected text, found a NUL; another encoding? (data.encoding)")
    return text.removeprefix("\ufeff"), recorded(encoding)
