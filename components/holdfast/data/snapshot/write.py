"""The snapshot's document and files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact, seal, write_artifact
from holdfast.data.snapshot.reviewed import SnapshotParts


def write(document: Snapshot, parts: SnapshotParts, out: Path) -> Artifact[Snapshot]:
    """Writes both parts to `out`, a file each, and pins them."""
    with write_artifact(out) as work:
        parts.train.save(work, "train", document)
        parts.test.save(work, "test", document)
        sealed = seal(work, document)
    return Artifact(out, sealed.document, sealed.digest)


def per_class(y: NDArray[np.int64], classes: Sequence[str]) -> tuple[int, ...]:
    """How many rows each class has."""
    return tuple(np.bincount(y, minlength=len(classes)).tolist())
