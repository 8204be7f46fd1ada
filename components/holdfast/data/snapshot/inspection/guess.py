"""Which column is meant: the one that holds the class, and one that was named nearly right."""

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from holdfast.data.snapshot.listing import listed
from holdfast.errors import InputError
from holdfast.modality.cells import spelt

LABELS = ("label", "class", "target", "y", "outcome", "fraud", "is_fraud", "default", "churn")
"""Names, in lower case, that a column of classes usually has."""


def guess_label(columns: Collection[str]) -> str | None:
    """The column with a usual name for the class; None: there is none."""
    lower = {column.lower(): column for column in columns}
    return next((lower[name] for name in LABELS if name in lower), None)


def check_column(columns: Collection[str], name: str, data: Path) -> str:
    """The column's name.

    Raises:
        InputError: there is none of that name; the message suggests the one meant.
    """
    if spelt(name) in columns:
        return spelt(name)
    close = get_close_matches(name, columns, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"columns: {listed(columns)}"
    raise InputError(f"{data}: expected a column {name!r}, found none; {hint}")
