"""A delivery's cells although its section does not fit yet: what the reader refuses is noted, and the key guessed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.data.snapshot.delivered import DeliveredFile
from holdfast.data.snapshot.dialect import DELIMITERS
from holdfast.data.snapshot.read import read_tables
from holdfast.data.snapshot.rows import Part
from holdfast.errors import InputError
from holdfast.workload.schema import DataConfig


@dataclass(frozen=True)
class GuessedReading:
    """The cells, the section with which they could be read, and what was refused before."""

    parts: list[Part]
    data: DataConfig
    refused: tuple[str, ...] = ()


def read_with_guesses(files: Sequence[DeliveredFile], data: DataConfig) -> GuessedReading:
    """The cells of each file.

    Raises:
        InputError: no encoding, decimal mark or delimiter helps; the first refusal.
    """
    try:
        return GuessedReading(read_tables(files, data), data)
    except InputError as error:
        refusal = error
    for key, value in _guesses(data, str(refusal)):
        guessed = data.model_copy(update={key: value})
        try:
            return GuessedReading(read_tables(files, guessed), guessed, (str(refusal),))
        except InputError:
            continue
    raise refusal


def _guesses(data: DataConfig, refusal: str) -> Iterator[tuple[str, Any]]:
    """The key that the refusal names and the workload leaves out, with values to try."""
    tries: dict[str, tuple[str, ...]] = {
        "encoding": ("cp1252", "latin-1"),
        "decimal": (",",),
        "delimiter": DELIMITERS,
    }
    for key, values in tries.items():
        if f"data.{key}" in refusal and getattr(data, key) is None:
            yield from ((key, value) for value in values)
