"""The journal of a rollout on this machine: one JSON object per line, on disk before the act that it announces.

Opening it takes a lock and a fence token higher than any before, so that of two drivers one is refused and the
journal shows which lines are whose. A line torn by a crash is dropped; it announced an act that did not begin.
Checkpoints between transitions replace one small file of their own instead of growing the journal.
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

from holdfast.artifacts.folder import replace_file
from holdfast.errors import RolloutError

JournalLine = Mapping[str, object]
JOURNAL, TIMELINE = "journal.jsonl", "timeline.jsonl"
"""Files of a rollout's folder."""
ROLLOUT = "rollout"
"""The key of a line that holds the rollout's state."""
MAX_BYTES = 2**26
"""A journal that is longer is not one of ours."""


@dataclass
class Journal:
    """An open journal; implements `holdfast.serving.rollout.contract.driver.Store`."""

    path: Path
    stream: BinaryIO
    fence: int
    earlier: tuple[JournalLine, ...]
    """Lines of earlier drivers."""
    state: Mapping[str, object] | None
    """The rollout's state as the driver before this one wrote it last."""
    sequence: int = 0
    """Of the last line; it grows by one."""
    began: float = field(default_factory=time.monotonic)

    def write(self, kind: str, state: Mapping[str, object] | None = None, /, **facts: object) -> None:
        """Appends one line and returns when it is on disk; a checkpoint replaces the one before.

        Raises:
            RolloutError: it could not be written; the journal is as before.
        """
        entry = {
            "fence": self.fence,
            "sequence": self.sequence + 1,
            "t": round(time.monotonic() - self.began, 4),
            "kind": kind,
            **facts,
            **({ROLLOUT: state} if state is not None else {}),
        }
        line = json.dumps(entry, sort_keys=True).encode() + b"\n"
        try:
            if kind == "checkpoint":
                replace_file(checkpoint_of(self.path), line)
            else:
                self._append(line)
        except OSError as error:
            raise RolloutError(f"{self.path}: expected to write, found {error.strerror or error}") from None
        self.sequence += 1

    def _append(self, line: bytes) -> None:
        end = self.stream.seek(0, os.SEEK_END)
        try:
            self.stream.write(line)
            self.stream.flush()
            os.fsync(self.stream.fileno())
        except OSError:
            # Half a line in the middle would make all after it unreadable.
            os.ftruncate(self.stream.fileno(), end)
            raise


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Opens or creates the journal at `path` for this driver alone.

    Raises:
        RolloutError: another driver holds it, or a line that is not the last has no meaning.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unbuffered: what a failed write left in a buffer would be written by the next one.
    with path.open("ab+", buffering=0) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RolloutError(f"{path}: cannot start: another rollout is running here") from None
        entries = tuple(read_journal(path))
        stream.truncate(_whole(path.read_bytes()))
        newest = _newest(entries, _checkpoint(path))
        fence = 1 + max((_number(entry, "fence") for entry in entries), default=0)
        sequence = max((_number(entry, "sequence") for entry in entries), default=0)
        yield Journal(path, stream, fence, entries, newest, sequence)


def state_folder(out: Path) -> Path:
    """Where a rollout that writes its record to `out` keeps what it needs to go on after a crash."""
    return out.absolute().parent / f".{out.name}.rollout"


def read_journal(path: Path) -> list[JournalLine]:
    """The whole lines of a journal.

    Raises:
        RolloutError: a line has no meaning, or the file is far longer than a journal is.
    """
    if path.stat().st_size > MAX_BYTES:
        raise RolloutError(f"{path}: expected a journal of at most {MAX_BYTES} bytes, found {path.stat().st_size}")
    data = path.read_bytes()
    return list(_parse(data[: _whole(data)], path))


def checkpoint_of(path: Path) -> Path:
    """The file with the last checkpoint of the journal at `path`."""
    return path.with_suffix(".checkpoint.json")


def _whole(data: bytes) -> int:
    """How many bytes belong to whole lines."""
    return data.rfind(b"\n") + 1


def _checkpoint(path: Path) -> list[JournalLine]:
    file = checkpoint_of(path)
    return list(_parse(file.read_bytes(), file)) if file.exists() else []


def _newest(entries: tuple[JournalLine, ...], checkpoint: list[JournalLine]) -> Mapping[str, object] | None:
    found = [entry for entry in (*entries, *checkpoint) if isinstance(entry.get(ROLLOUT), Mapping)]
    last = max(found, key=lambda entry: _number(entry, "sequence"), default=None)
    state = None if last is None else last[ROLLOUT]
    return state if isinstance(state, Mapping) else None


def _parse(data: bytes, path: Path) -> Iterator[JournalLine]:
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("fence"), int):
            raise RolloutError(f"{path}:{number}: expected a journal line, found {line[:60]!r}")
        yield entry


def _number(entry: JournalLine, key: str) -> int:
    value = entry.get(key, 0)
    return value if isinstance(value, int) else 0
