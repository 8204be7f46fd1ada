"""What a run folder holds: `run.json`, `steps/STEP/` with the artifact of each step, and `logs/STEP.log`."""

from pathlib import Path
from typing import TypeVar

from holdfast.artifacts.documents import Document
from holdfast.artifacts.folder import Artifact, load
from holdfast.steps import writer

ARTIFACTS = "steps"
LOGS = "logs"

D = TypeVar("D", bound=Document)


def place_of(run: Path, kind: type[Document]) -> Path:
    """Where the step that writes this kind of document leaves its artifact."""
    return run / ARTIFACTS / writer(kind).name


def read_artifact(run: Path, kind: type[D]) -> Artifact[D]:
    """The artifact of this kind.

    Raises:
        ArtifactError: the run has none, or it cannot be read.
    """
    return load(place_of(run, kind), kind)
