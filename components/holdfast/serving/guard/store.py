"""The records of all clients in one SQLite file: memory holds some, the file all.

Every change is written before its answer is given: a server that is killed has lost nothing of a client's wealth,
budget or alarm. A machine that loses its power may lose the last seconds, and no more.
"""

import sqlite3
import threading
from pathlib import Path

import numpy as np

from holdfast.errors import WorkloadError
from holdfast.serving.guard.record import NONE, LastQueries, Record

MOST_CLIENTS = 1_000_000
"""Beyond these the clients who were not seen for the longest time, and are not alarmed, are forgotten."""
_CHECKPOINT_PAGES = 8_000
"""32 MB: a checkpoint waits for the disk, and its request with it; this way it is one of some thousand requests."""
_FORGOTTEN_AT_ONCE, _LOOKED_AFTER = 10_000, 1_000
_TABLE = """CREATE TABLE IF NOT EXISTS clients (
  name TEXT PRIMARY KEY, far BLOB NOT NULL, near BLOB NOT NULL, seen_far INTEGER NOT NULL, seen_near INTEGER NOT NULL,
  asked INTEGER NOT NULL, since REAL NOT NULL, rows INTEGER NOT NULL, alarmed_by TEXT NOT NULL, at REAL NOT NULL,
  sketches BLOB NOT NULL DEFAULT x'', digests BLOB NOT NULL DEFAULT x'') WITHOUT ROWID"""
_PUT = """INSERT INTO clients (name, far, near, seen_far, seen_near, asked, since, rows, alarmed_by, at)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET far = excluded.far, near = excluded.near,
  seen_far = excluded.seen_far, seen_near = excluded.seen_near, asked = excluded.asked, since = excluded.since,
  rows = excluded.rows, alarmed_by = excluded.alarmed_by, at = excluded.at"""
_COLUMNS = "far, near, seen_far, seen_near, asked, since, rows, alarmed_by, sketches, digests"
_FORGET = """DELETE FROM clients WHERE name IN
  (SELECT name FROM clients WHERE alarmed_by = '' AND name != '' ORDER BY at LIMIT ?)"""


class SqliteStore:
    """`RecordStore` in one file, for one process."""

    def __init__(self, path: Path, model: str | None = None, *, most: int = MOST_CLIENTS) -> None:
        """Opens the file, or makes it; it belongs to the model of that digest. Without one it must be there.

        Raises:
            WorkloadError: it is no such file, or belongs to another model.
        """
        if model is None and not path.is_file():
            raise WorkloadError(f"{path}: expected the state of a guard, found no file")
        self._most, self._new, self._lock = most, 0, threading.Lock()
        try:
            self._open(path, model)
        except sqlite3.Error as error:
            raise WorkloadError(f"{path}: expected the state of a guard, found {error}") from None

    def _open(self, path: Path, model: str | None) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = NORMAL")
        self._file.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        self._file.execute(_TABLE)
        self._file.execute("CREATE TABLE IF NOT EXISTS model (digest TEXT PRIMARY KEY)")
        self._file.execute("CREATE INDEX IF NOT EXISTS alarmed ON clients (name) WHERE alarmed_by != ''")
        found = self._file.execute("SELECT digest FROM model").fetchone()
        if found is None and model is None:
            raise WorkloadError(f"{path}: expected the state of a guard, found that of no model")
        if found is None:
            self._file.execute("INSERT INTO model VALUES (?)", (model,))
        elif model is not None and found[0] != model:
            raise WorkloadError(
                f"{path}: expected the state of the guard of model {model[:12]}…, found that of {found[0][:12]}…; name "
                "a file for each model"
            )

    def get(self, name: str) -> Record | None:
        """As `RecordStore.get`."""
        with self._lock:
            row = self._file.execute(f"SELECT {_COLUMNS} FROM clients WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        far, near = (np.frombuffer(data, np.float64).copy() for data in row[:2])
        asked, since, rows, alarmed_by = row[4:8]
        return Record(far, near, (row[2], row[3]), asked, since, rows, alarmed_by, _last(row[8], row[9]))

    def put(self, name: str, record: Record, now: float) -> None:
        """As `RecordStore.put`."""
        about = (record.asked, record.since, record.rows, record.alarmed_by, now)
        with self._lock:
            self._file.execute(_PUT, (name, record.far.tobytes(), record.near.tobytes(), *record.seen, *about))
            self._new += record.rows <= 1
            if self._new >= _LOOKED_AFTER:
                self._forget()

    def put_last(self, name: str, last: LastQueries) -> None:
        """As `RecordStore.put_last`."""
        values = (last.sketches.tobytes(), last.digests.tobytes(), name)
        with self._lock:
            self._file.execute("UPDATE clients SET sketches = ?, digests = ? WHERE name = ?", values)

    def alarmed(self) -> int:
        """As `RecordStore.alarmed`."""
        with self._lock:
            return int(self._file.execute("SELECT COUNT(*) FROM clients WHERE alarmed_by != ''").fetchone()[0])

    def listed(self) -> list[tuple[str, str, int, float]]:
        """(name, detector, rows, seconds since 1970 of the last) of each client with an alarm, the latest first."""
        asked = "SELECT name, alarmed_by, rows, at FROM clients WHERE alarmed_by != '' ORDER BY at DESC"
        with self._lock:
            return [(name, by, rows, at) for name, by, rows, at in self._file.execute(asked)]

    def release(self, name: str) -> bool:
        """Forgets a client, alarm and wealth and all; whether there was one."""
        with self._lock:
            return self._file.execute("DELETE FROM clients WHERE name = ?", (name,)).rowcount > 0

    def close(self) -> None:
        """Writes all and closes the file."""
        self._file.close()

    def _forget(self) -> None:
        self._new = 0
        count = int(self._file.execute("SELECT COUNT(*) FROM clients").fetchone()[0])
        if count > self._most:
            self._file.execute(_FORGET, (count - self._most + min(_FORGOTTEN_AT_ONCE, self._most // 10),))


def _last(sketches: bytes, digests: bytes) -> LastQueries:
    found = np.frombuffer(digests, np.int64)
    if not len(found):
        return NONE
    return LastQueries(np.frombuffer(sketches, np.int8).reshape(len(found), -1), found)
