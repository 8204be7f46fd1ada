"""How fast files are pinned: ours compared with the standard library's, on one 64 MiB file in the page cache."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.scenes import Bench
from benchmarks.table import Row, at_most, cpu_seconds
from holdfast.artifacts.folder import sha256_of

MIB = 64


def run(bench: Bench) -> list[Row]:
    """CPU-seconds of `sha256_of` over those of `hashlib.file_digest`."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "big"
        path.write_bytes(bytes(range(256)) * (MIB * 4096))
        ours = cpu_seconds(lambda: sha256_of(path), repeats=5)
        theirs = cpu_seconds(lambda: _file_digest(path), repeats=5)
    return [at_most("sha256 of 64 MiB, time relative to hashlib.file_digest", ours / theirs, 1.1, "best of 5")]


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
