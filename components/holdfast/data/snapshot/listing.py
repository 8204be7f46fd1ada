"""How refusals name rows: how many, the first of them, and their lines in the file."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.wording import FIRST, listed, quoted

__all__ = ["Lines", "listed", "quoted", "rows_of", "written_as"]

Lines = NDArray[np.int64] | None
"""The line of the file on which each row begins, int64[rows]; None where a file has no lines."""


def rows_of(mask: NDArray[np.bool_], lines: Lines = None) -> str:
    """`2 of 100 rows (first: 3, 7; lines 4, 8)`; rows are counted from 1, without the header, lines with it."""
    rows = np.flatnonzero(mask)
    if lines is None:
        return f"{len(rows)} of {len(mask)} rows (first: {listed(rows[:FIRST] + 1)})"
    at = f"line{'s' * (len(rows) > 1)} {listed(lines[rows[:FIRST]])}"
    return f"{len(rows)} of {len(mask)} rows (first: {listed(rows[:FIRST] + 1)}; {at})"


def written_as(cells: Iterable[Any]) -> str:
    """`, written as 'NULL', 'nan'` for missing cells that hold a text; nothing for empty ones."""
    texts = sorted({str(cell).strip() for cell in cells if cell is not None} - {""})
    return f", written as {quoted(texts)}" if texts else ""
