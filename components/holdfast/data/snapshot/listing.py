"""How refusals name rows: how many, and the first of them."""

import numpy as np
from numpy.typing import NDArray

from holdfast.wording import FIRST, listed, quoted

__all__ = ["listed", "quoted", "rows_of"]


def rows_of(mask: NDArray[np.bool_]) -> str:
    """`2 of 100 rows (first: 3, 7)`; rows are counted from 1, without the header."""
    rows = np.flatnonzero(mask) + 1
    return f"{len(rows)} of {len(mask)} rows (first: {listed(rows[:FIRST])})"
