"""Blocks of cells as numbers, where every cell is surely one: no junk, no code, nothing that rounding would change.

Cells as programs write numbers are converted many at a time; each other spelling is looked at once. A block that holds
anything else is not converted, and its column is read as texts.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.numbers import DecimalMark, changed, could_be_code, is_number, with_point
from holdfast.modality.cells import is_missing

if TYPE_CHECKING:
    import pyarrow as pa

_PLAIN: dict[DecimalMark, str] = {
    mark: rf"^-?(0|[1-9][0-9]{{0,14}})({re.escape(mark)}[0-9]+)?(e-[0-9]{{1,3}})?$" for mark in (".", ",")
}
"""At most 15 digits before the fraction, so that a float64 holds them; no leading zero; no exponent of a code."""


@dataclass(frozen=True)
class Numbers:
    """Cells as float64[rows], and which of them are missing (NaN), as row numbers."""

    values: NDArray[np.float64]
    missing: NDArray[np.int64]


def plain_numbers(texts: "pa.Array", decimal: DecimalMark) -> Numbers | None:
    """The numbers that `texts` are; None where one of them is no number, or could be something else."""
    import pyarrow.compute as pc

    texts = pc.fill_null(texts, "")
    sure = pc.match_substring_regex(texts, _PLAIN[decimal])
    if pc.all(sure).as_py() is not False:
        return Numbers(_converted(texts, decimal), np.empty(0, dtype=np.int64))
    texts = pc.ascii_trim_whitespace(texts)
    sure = pc.match_substring_regex(texts, _PLAIN[decimal])
    plain = sure.to_numpy(zero_copy_only=False)
    others = np.flatnonzero(~plain)
    found = _spelt_otherwise(texts.take(others), decimal)
    if found is None:
        return None
    values = np.empty(len(texts))
    values[plain], values[others] = _converted(texts.filter(sure), decimal), found
    return Numbers(values, others[np.isnan(found)])


def _converted(texts: "pa.Array", decimal: DecimalMark) -> NDArray[np.float64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if decimal == ",":
        texts = pc.replace_substring(texts, ",", ".")
    return np.asarray(texts.cast(pa.float64()).to_numpy(zero_copy_only=False))


def _spelt_otherwise(texts: "pa.Array", decimal: DecimalMark) -> NDArray[np.float64] | None:
    """NaN for missing cells; None where a cell is no number, or could be a code."""
    encoded = texts.dictionary_encode()
    known = [_number(text, decimal) for text in encoded.dictionary.to_pylist()]
    if any(value is None for value in known):
        return None
    return np.asarray(np.array(known, dtype=np.float64)[encoded.indices.to_numpy()])


def _number(cell: str, decimal: DecimalMark) -> float | None:
    if is_missing(cell):
        return np.nan
    text = cell.strip().lower()
    if could_be_code(text):
        return None
    text = with_point(text) if decimal == "," else text
    if not is_number(text) or changed(cell):
        return None
    return float(text)
