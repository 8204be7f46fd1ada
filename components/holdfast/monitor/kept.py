"""What a monitor keeps from run to run in a folder of the model: reports and requests, by hour and digest."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from holdfast.artifacts.documents import Document, RetrainRequest
from holdfast.artifacts.folder import DOCUMENT, Artifact, load
from holdfast.errors import ArtifactError
from holdfast.progress import say
from holdfast.reuse import copy_artifact

D = TypeVar("D", bound=Document)
MOST = 96
"""Reports that are kept: each holds the state of all hours. Requests stay."""
_HOUR = 13


def newest(folder: Path, kind: type[D], counts: Callable[[D], bool] = lambda one: True) -> Artifact[D] | None:
    """The newest whole artifact of this kind; None: there is none.

    One that was altered is named on standard error and left out: the state of an older report and the log lead to the
    same evidence.
    """
    for place in sorted(_places(folder, kind), reverse=True):
        try:
            found = load(place, kind)
            for name in found.document.files:
                found.path(name)
        except ArtifactError as error:
            say(f"monitor: {place} is left out: {error}")
            continue
        if counts(found.document):
            return found
    return None


def keep(artifact: Artifact[D], folder: Path, hour: str) -> None:
    """Copies the artifact to the folder, whole or not at all, and removes the oldest reports.

    Args:
        artifact: what was made.
        folder: of the model; made where missing.
        hour: of the last window, `2026-03-10T00:00:00Z`; the order of names is that of hours.
    """
    kind = type(artifact.document)
    into = _folder(folder, kind)
    into.mkdir(parents=True, exist_ok=True)
    place = into / f"{hour[:_HOUR]}-{artifact.digest[:12]}"
    if not place.exists():
        copy_artifact(artifact.folder, place)
    if kind is not RetrainRequest:
        for old in sorted(_places(folder, kind))[:-MOST]:
            shutil.rmtree(old, ignore_errors=True)


def _places(folder: Path, kind: type[Document]) -> list[Path]:
    into = _folder(folder, kind)
    found = into.iterdir() if into.is_dir() else ()
    return [one for one in found if not one.name.startswith(".") and (one / DOCUMENT).exists()]


def _folder(folder: Path, kind: type[Document]) -> Path:
    return folder / ("requests" if kind is RetrainRequest else "reports")
