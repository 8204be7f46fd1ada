"""The table view of a snapshot: what schema, drift and reports look at, for every modality.

Tables are seen as they are. Images become the means of at most 8 x 8 cells per channel plus brightness, contrast,
lowest and highest value; messages become counts and shares of kinds of characters. The label is the last column, as a
class name.
"""

from typing import TYPE_CHECKING

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.modality import modality_of
from holdfast.modality.protocol import SplitName

if TYPE_CHECKING:
    import pandas as pd


def read_table(snapshot: Artifact[Snapshot], split: SplitName) -> "pd.DataFrame":
    """The rows of `split` in the table view; row i is row i of the snapshot's file.

    Image cells keep the delivery's own units.
    """
    return modality_of(snapshot.document.modality).table(snapshot, split)
