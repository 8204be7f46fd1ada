"""The snapshot's document and files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact, seal, write_artifact
from holdfast.data.snapshot.places import PlaceUnit
from holdfast.data.snapshot.reviewed import SnapshotParts
from holdfast.data.snapshot.rows import save_places
from holdfast.quarantine.places import PLACES


def write(document: Snapshot, parts: SnapshotParts, out: Path) -> Artifact[Snapshot]:
    """Writes both parts to `out`, a file each, and pins them."""
    with write_artifact(out) as work:
        parts.train.save(work, "train", document)
        parts.test.save(work, "test", document)
        save_places(work / PLACES, parts.train.places, parts.test.places)
        sealed = seal(work, document)
    return Artifact(out, sealed.document, sealed.digest)


def units_of(parts: SnapshotParts) -> tuple[PlaceUnit, PlaceUnit] | None:
    """In what the places of the training rows and of the held-out rows are counted; None where they are not known."""
    train, test = parts.train.places, parts.test.places
    return None if train is None or test is None else (train.unit, test.unit)


def per_class(y: NDArray[np.int64], classes: Sequence[str]) -> tuple[int, ...]:
    """How many rows each class has."""
    return tuple(np.bincount(y, minlength=len(classes)).tolist())
