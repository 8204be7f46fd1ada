"""The rollout's journal: one JSON object per line, on disk before the act that it announces.

Opening it takes a lock and a fence token higher than any before, so that of two drivers one is refused and the
journal shows which lines are whose. A line torn by a crash is dropped; it announced an act that did not begin.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from holdfast.errors import RolloutError

Entry = Mapping[str, object]


@dataclass
class Journal:
    """An open journal."""

    path: Path
    stream: BinaryIO
    fence: int
    earlier: tuple[Entry, ...]
    """Lines of earlier drivers."""
    began: float = field(default_factory=time.monotonic)

    def write(self, kind: str, **facts: object) -> None:
        """Appends one line and returns when it is on disk."""
        entry = {"fence": self.fence, "t": round(time.monotonic() - self.began, 4), "kind": kind, **facts}
        self.stream.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
        self.stream.flush()
        os.fsync(self.stream.fileno())


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Opens or creates the journal at `path` for this driver alone.

    Raises:
        RolloutError: another driver holds it, or a line that is not the last has no meaning.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RolloutError(f"{path}: expected no other rollout here, found one that is running") from None
        stream.seek(0)
        data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        stream.truncate(len(whole))
        earlier = tuple(_parse(whole, path))
        yield Journal(path, stream, 1 + max((_fence(entry) for entry in earlier), default=0), earlier)


def read_journal(path: Path) -> list[Entry]:
    """The whole lines of a journal.

    Raises:
        RolloutError: a line has no meaning.
    """
    data = path.read_bytes()
    return list(_parse(data[: data.rfind(b"\n") + 1], path))


def _parse(data: bytes, path: Path) -> Iterator[Entry]:
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("fence"), int):
            raise RolloutError(f"{path}:{number}: expected a journal line, found {line[:60]!r}")
        yield entry


def _fence(entry: Entry) -> int:
    fence = entry["fence"]
    return fence if isinstance(fence, int) else 0
