"""Reviews on disk: a folder of versions `0001`, `0002`, ..., each an artifact that is never written again."""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.artifacts.documents import Review
from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, load, save
from holdfast.errors import ArtifactError

_VERSION = re.compile(r"[0-9]{4,9}")


def find_review(text: str) -> Artifact[Review]:
    """The review at FOLDER or FOLDER@DIGEST, or the newest of the versions in FOLDER.

    Raises:
        ArtifactError: there is none, or it is something else.
        IntegrityError: it has another digest.
    """
    ref = Ref.parse(text)
    if ref.digest is not None or (ref.folder / DOCUMENT).exists():
        return load(ref, Review)
    newest = newest_review(ref.folder)
    if newest is None:
        raise ArtifactError(f"{ref.folder}: expected a review or a folder of reviews, found none")
    return newest


def newest_review(folder: Path) -> Artifact[Review] | None:
    """The newest version in `folder`; None when there is none yet."""
    versions = _versions(folder)
    return load(folder / versions[-1], Review) if versions else None


def append_review(folder: Path, decide: Callable[[Artifact[Review] | None], Review]) -> Artifact[Review]:
    """Writes what `decide` makes of the newest version as the next one; those before stay as they are.

    Nothing is written when `decide` gives a review with the same rows. One writer at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        newest = newest_review(folder)
        review = decide(newest)
        if newest is not None and _same_rows(newest.document, review):
            return newest
        versions = _versions(folder)
        number = int(versions[-1]) + 1 if versions else 1
        return save(folder / f"{number:04d}", review)


def _same_rows(one: Review, other: Review) -> bool:
    return (one.entries, one.undecided) == (other.entries, other.undecided)


def _versions(folder: Path) -> list[str]:
    """Names of the versions, oldest first."""
    found = [path.name for path in folder.glob("*") if _VERSION.fullmatch(path.name) and (path / DOCUMENT).exists()]
    return sorted(found, key=int)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
