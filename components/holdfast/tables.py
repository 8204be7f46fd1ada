"""Tables: the names of their columns, and the table view of a snapshot, which schema, drift and reports look at.

Tables are seen as they are. Images become the means of at most 8 x 8 cells per channel plus brightness, contrast,
lowest and highest value; messages become counts and shares of kinds of characters. The label is the last column, as a
class name.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.modality.protocol import SplitName
from holdfast.wording import quoted

if TYPE_CHECKING:
    import pandas as pd

MAX_COLUMNS = 20_000


def read_table(snapshot: Artifact[Snapshot], split: SplitName) -> "pd.DataFrame":
    """The rows of `split` in the table view; row i is row i of the snapshot's file.

    Image cells keep the delivery's own units.
    """
    return modality_of(snapshot.document.modality).table(snapshot, split)


def table_blocks(snapshot: Artifact[Snapshot], split: SplitName) -> Iterator["pd.DataFrame"]:
    """The same rows, some at a time."""
    return modality_of(snapshot.document.modality).table_blocks(snapshot, split)


def sample_table(snapshot: Artifact[Snapshot], split: SplitName, most: int, rng: np.random.Generator) -> "pd.DataFrame":
    """At most `most` rows of the table view, chosen by `rng`, in the order of the file."""
    document = snapshot.document
    rows = sampled_rows(document.train_rows if split == "train" else document.test_rows, most, rng)
    if rows is None:
        return read_table(snapshot, split)
    return modality_of(document.modality).sample(snapshot, split, rows)


def sampled_rows(count: int, most: int, rng: np.random.Generator) -> NDArray[np.int64] | None:
    """Which of `count` rows are a sample of `most`, ascending; None: all of them are."""
    if count <= most:
        return None
    return np.sort(rng.choice(count, most, replace=False))


def check_names(names: Sequence[str], name: str) -> None:
    """Every column has a name of its own.

    Raises:
        InputError: otherwise, or more than `MAX_COLUMNS`.
    """
    if len(names) > MAX_COLUMNS:
        raise InputError(f"{name}: expected at most {MAX_COLUMNS} columns, found {len(names)}")
    twice = [column for column, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{name}: expected each column once, found {quoted(twice)} more than once")
    if any(not column.strip() for column in names):
        empty = next(place for place, column in enumerate(names, start=1) if not column.strip())
        raise InputError(f"{name}: expected a name for each column, found an empty one at {empty}")
