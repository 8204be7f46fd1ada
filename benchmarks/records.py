"""Single runs of a benchmark that is made in parts: kept in .holdfast/bench, one JSON object per line.

A record holds for the code that was measured: each has the digest of the sources it is about, and those of other
sources are left out.
"""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.table import ROOT

_KINDS = {".py", ".yaml", ".txt", ".json", ".html", ".j2"}

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Records:
    """The records of one benchmark."""

    path: Path
    sources: str
    """Digest of the code that they are about."""

    @classmethod
    def of(cls, name: str, *parts: str, root: Path = ROOT) -> "Records":
        """Those of benchmark `name` about the code in `parts` (files or folders below the root)."""
        return cls(root / ".holdfast" / "bench" / f"{name}.jsonl", digest(root, parts))

    def add(self, record: Record) -> None:
        """Keeps one record."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**record, "sources": self.sources}) + "\n")

    def read(self) -> list[Record]:
        """The records about this code, oldest first; reports how many of other code there are."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        every = [json.loads(line) for line in lines]
        ours = [record for record in every if record["sources"] == self.sources]
        if len(ours) < len(every):
            sys.stderr.write(f"{self.path}: {len(every) - len(ours)} runs of other code are left out\n")
        return ours

    def clear(self) -> None:
        """Forgets all of them."""
        self.path.unlink(missing_ok=True)


def keep_failed(folder: Path, name: str, root: Path = ROOT) -> None:
    """Copies the folder of a run that did not end as expected to .holdfast/bench/failed/NAME, for a person to read."""
    with contextlib.suppress(shutil.Error):  # a socket has no bytes to copy
        shutil.copytree(folder, root / ".holdfast" / "bench" / "failed" / name, symlinks=True, dirs_exist_ok=True)


def digest(root: Path, parts: Sequence[str]) -> str:
    """SHA-256 over the names and bytes of the source files in `parts`, 12 hexadecimal digits."""
    found = hashlib.sha256()
    for path in sorted(file for part in parts for file in _files(root / part)):
        found.update(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:12]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in _KINDS]
