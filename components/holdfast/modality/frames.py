"""Rows in Parquet files: what tables and messages share."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError
from holdfast.modality.protocol import SplitName

if TYPE_CHECKING:
    import pandas as pd


def harden_pyarrow() -> None:
    """Afterwards no Parquet file can make pyarrow unpickle (CVE-2023-47248: TFDV pins a pyarrow that would)."""
    if find_spec("pyarrow_hotfix") is not None:
        import pyarrow_hotfix  # noqa: F401


def read_frame(snapshot: Artifact[Snapshot], split: SplitName) -> "pd.DataFrame":
    """The rows of a split as they were delivered, with their label."""
    import pandas as pd

    harden_pyarrow()
    return pd.read_parquet(snapshot.open(f"{split}.parquet"))


def class_indices(frame: "pd.DataFrame", snapshot: Artifact[Snapshot]) -> NDArray[np.int64]:
    """The classes int64[N] of rows.

    Raises:
        InputError: a class that the snapshot does not have.
    """
    document = snapshot.document
    names: Sequence[str] = frame[document.label].astype(str).tolist()
    index = {name: i for i, name in enumerate(document.classes)}
    unknown = sorted(set(names) - set(index))
    if unknown:
        raise InputError(f"{snapshot.folder}: expected the classes {list(document.classes)}, found {unknown[0]!r}")
    return np.array([index[name] for name in names], dtype=np.int64)
