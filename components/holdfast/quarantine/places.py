"""Where a row of a snapshot is in the delivered file, in words for a reviewer."""

from collections.abc import Callable
from typing import Literal

from holdfast.artifacts.arrays import arrays_of
from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact

PLACES = "places.npz"
"""The file of a snapshot with the arrays `train` and `test`, int32[rows] each, or int64 in very long files."""


def read_places(data: Artifact[Snapshot], split: Literal["train", "test"]) -> Callable[[int], str]:
    """The place of the row with an id, such as `payments.csv line 813`; nothing for a snapshot that does not know."""
    document = data.document
    if PLACES not in document.files or document.places is None:
        return lambda row: ""
    at = arrays_of(data.open(PLACES))[split]
    # Held-out rows that were not delivered apart are from the file of the training rows.
    file = document.sources[0 if split == "train" else -1].path
    unit = document.places[0 if split == "train" else -1]
    return lambda row: f"{file} {unit} {at[row]}"
