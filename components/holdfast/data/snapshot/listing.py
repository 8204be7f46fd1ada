"""How refusals name rows: how many, and the first of them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FIRST = 5


def rows_of(mask: NDArray[np.bool_]) -> str:
    """`2 of 100 rows (first: 3, 7)`; rows are counted from 1, without the header."""
    rows = np.flatnonzero(mask) + 1
    return f"{len(rows)} of {len(mask)} rows (first: {listed(rows[:FIRST])})"


def listed(values: Iterable[object]) -> str:
    """Lists at most five of `values`, each at most 40 characters, with commas; control characters escaped."""
    shown = [str(value) for value in values]
    more = ", …" if len(shown) > FIRST else ""
    return ", ".join(_short(value) for value in shown[:FIRST]) + more


def quoted(values: Iterable[object]) -> str:
    """Lists like `listed`, each in quotes."""
    shown = [str(value) for value in values]
    more = ", …" if len(shown) > FIRST else ""
    return ", ".join(f"'{_short(value)}'" for value in shown[:FIRST]) + more


def _short(text: str) -> str:
    cut = text if len(text) <= 40 else text[:39] + "…"
    return cut.encode("unicode_escape").decode() if not cut.isprintable() else cut
