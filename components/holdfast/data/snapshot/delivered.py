"""One file of a delivery: its bytes, read once, how these are written, and what a snapshot records of it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.artifacts.documents import SourceFile
from holdfast.artifacts.verified import FileContent, VerifiedFile, open_content
from holdfast.data.snapshot.archives import is_archive, unpack
from holdfast.data.snapshot.limits import decoded_limit
from holdfast.errors import InputError
from holdfast.workload.schema import DataConfig

Format = Literal["csv", "tsv", "parquet", "npz", "digits", "breast-cancer"]
"""How the bytes of a file are written; the last two are the files of scikit-learn."""
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet", ".npz": "npz"}


@dataclass(frozen=True)
class DeliveredFile:
    """One file of the delivery: its path relative to the delivery, what it holds, and what a snapshot records of it."""

    path: str
    content: FileContent
    """What is parsed: the bytes of the file, or those of the only file in an archive; a large file stays on disk."""
    format: Format
    pin: SourceFile

    @property
    def data(self) -> bytes:
        """All bytes."""
        if isinstance(self.content, bytes):
            return self.content
        with self.content.open() as stream:
            return stream.read()

    def head(self, most: int) -> bytes:
        """The first bytes, at most so many."""
        with open_content(self.content) as stream:
            return stream.read(most)

    def pin_as(self, read_as: str | None) -> SourceFile:
        """What a snapshot records of the file, with how it was read."""
        how = ", ".join(part for part in (self.pin.read_as, read_as) if part is not None)
        return self.pin.model_copy(update={"read_as": how or None})


def delivered(content: FileContent, name: str, config: DataConfig) -> DeliveredFile:
    """The file of these bytes, unpacked where it is the only one in an archive.

    Raises:
        InputError: its name does not show how it is written, or the archive holds nothing.
        LimitError: unpacked it is larger than allowed.
    """
    pin = pin_of(name, content)
    if isinstance(content, VerifiedFile) and not is_archive(content.block(0)):
        return DeliveredFile(name, content, _format(config, name), pin)
    packed = DeliveredFile(name, content, "npz", pin)
    found = unpack(packed.data, name, decoded_limit(config, len(content)))
    format_ = _format(config, found.name)
    if not found.data:
        raise InputError(f"{name}: expected data, found an empty file in the archive")
    return DeliveredFile(name, found.data, format_, pin.model_copy(update={"read_as": found.archive}))


def pin_of(name: str, content: FileContent) -> SourceFile:
    """Name, digest and size."""
    digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else content.sha256
    return SourceFile(path=name, sha256=digest, bytes=len(content))


def _format(config: DataConfig, name: str) -> Format:
    if config.format != "auto":
        return config.format
    suffix = Path(name).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"{name}: expected a name that ends in {', '.join(_SUFFIXES)} (or one of these and .gz or .zip), or "
            f"data.format; found {suffix!r}"
        )
    return _SUFFIXES[suffix]
