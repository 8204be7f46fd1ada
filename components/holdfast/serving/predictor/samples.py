"""The predictor's bounded log of what it answered: a random sample of each hour's rows, and every flagged row.

Off unless `sample_log` is among the parameters of the model. A file holds one hour of one server; it is replaced as a
whole, so that a reader sees no half of it and a crash loses at most `flush_seconds`. The oldest files go first when
there are too many. A disk that cannot be written is reported once an hour, and answers go on.
"""

import os
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from holdfast.artifacts.folder import replace_file
from holdfast.errors import WorkloadError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from holdfast.artifacts.documents import InputSpec
    from holdfast.serving.predictor.core import Answer

HOUR = 3600
MODEL, SERVED = b"holdfast.model", b"holdfast.served"
"""Keys of a file's metadata: the digest of the model, and how many rows the sample was drawn from."""
INPUT = "x"
"""The column of an input that has no named features, as a list of numbers."""
_COUNTS: dict[str, tuple[int, int, int]] = {
    "rows": (2000, 1, 10**6),
    "flagged": (1000, 0, 10**6),
    "hours": (1440, 1, 10**5),
    "megabytes": (2000, 1, 10**6),
    "flush_seconds": (300, 1, HOUR),
}
"""Setting -> its default, least and most."""


@dataclass(frozen=True)
class SampleLogSettings:
    """Where the log is, and what bounds it."""

    folder: Path
    rows: int
    """Sampled rows of an hour."""
    flagged: int
    """Most flagged rows of an hour."""
    hours: int
    """Most files."""
    megabytes: int
    """Most megabytes of all files; the newest is kept in any case."""
    flush_seconds: int
    redact: frozenset[str]
    """Columns that are not written: features by name, `x`, `probabilities`, `request`."""

    @classmethod
    def parse(cls, given: object) -> Self:
        """Reads `{folder: PATH, rows: 2000, flagged: 1000, hours: 1440, megabytes: 2000, redact: [NAME]}`.

        Raises:
            WorkloadError: an unknown key, no folder, or a value out of range.
        """
        if not isinstance(given, Mapping) or not isinstance(given.get("folder"), str) or not given["folder"]:
            raise WorkloadError(f"sample_log: expected an object with folder, found {given!r}")
        unknown = sorted(set(given) - {"folder", "redact", *_COUNTS})
        if unknown:
            raise WorkloadError(f"sample_log: expected one of folder, redact, {', '.join(_COUNTS)}, found {unknown[0]}")
        redact = given.get("redact", [])
        if not isinstance(redact, list) or not all(isinstance(name, str) for name in redact):
            raise WorkloadError(f"sample_log: redact: expected a list of column names, found {redact!r}")
        counts = {name: _count(name, given.get(name, bounds[0])) for name, bounds in _COUNTS.items()}
        return cls(Path(given["folder"]), redact=frozenset(redact), **counts)


def _count(name: str, value: object) -> int:
    _, least, most = _COUNTS[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise WorkloadError(f"sample_log: {name}: expected a whole number in [{least}, {most}], found {value!r}")
    return value


@dataclass(frozen=True)
class SampledRow:
    """One row that was answered."""

    request: str
    row: int
    """Its place in the request."""
    at: int
    """Seconds since 1970, UTC."""
    label: int
    probabilities: "NDArray[np.floating]"
    x: "NDArray[np.generic]"
    flagged: bool


@dataclass
class _Hour:
    """The sample of one hour: every row is in it with the same chance (algorithm R, Vitter 1985)."""

    number: int
    served: int = 0
    sample: list[SampledRow] = field(default_factory=list)
    flagged: list[SampledRow] = field(default_factory=list)


class SampleLog:
    """Takes rows while a server answers, and writes them hour by hour; not safe for several threads."""

    def __init__(self, settings: SampleLogSettings, model: str, spec: "InputSpec") -> None:
        import numpy as np

        self._settings, self._model, self._spec = settings, model, spec
        self._chance = np.random.default_rng(secrets.randbits(128))  # no client can know which rows are drawn
        self._hour = _Hour(0)
        self._next_flush = 0.0
        self._failed_in = -1

    def record(
        self,
        request: str,
        x: "NDArray[np.generic]",
        answer: "Answer",
        *,
        flagged: bool = False,
        now: float | None = None,
    ) -> None:
        """Counts the rows of one answered request, and keeps some; writes when an hour or `flush_seconds` are over."""
        at = time.time() if now is None else now
        if int(at // HOUR) != self._hour.number:
            self.flush()
            self._hour = _Hour(int(at // HOUR))
            self._next_flush = at + self._settings.flush_seconds
        for i in range(len(x)):
            self._take(SampledRow(request, i, int(at), int(answer.label[i]), answer.probabilities[i], x[i], flagged))
        if at >= self._next_flush:
            self.flush()
            self._next_flush = at + self._settings.flush_seconds

    def flush(self) -> None:
        """Writes the hour so far, and removes files beyond the bounds; a failure is one line on standard error."""
        if not self._hour.served:
            return
        try:
            self._settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._settings.folder / self._name(), self._parquet(), private=True)
            self._remove_old()
        except OSError as error:
            if self._failed_in != self._hour.number:
                sys.stderr.write(
                    f"sample_log: {self._settings.folder}: not written ({error.strerror}); answers go on\n"
                )
            self._failed_in = self._hour.number

    def _take(self, row: SampledRow) -> None:
        hour = self._hour
        hour.served += 1
        if row.flagged and len(hour.flagged) < self._settings.flagged:
            hour.flagged.append(row)
        if len(hour.sample) < self._settings.rows:
            hour.sample.append(row)
        elif (place := int(self._chance.integers(hour.served))) < self._settings.rows:
            hour.sample[place] = row

    def _name(self) -> str:
        when = time.strftime("%Y-%m-%dT%H", time.gmtime(self._hour.number * HOUR))
        return f"{when}-{self._model[:12]}-{os.getpid()}.parquet"

    def _parquet(self) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sampled = {id(row) for row in self._hour.sample}
        rows = [*self._hour.sample, *(row for row in self._hour.flagged if id(row) not in sampled)]
        columns: dict[str, Any] = {
            "request": [row.request for row in rows],
            "row": pa.array([row.row for row in rows], pa.int32()),
            "at": pa.array([row.at for row in rows], pa.int64()),
            "label": pa.array([row.label for row in rows], pa.int32()),
            "probabilities": pa.array([row.probabilities.tolist() for row in rows], pa.list_(pa.float32())),
            "flagged": [row.flagged for row in rows],
            "sampled": [id(row) in sampled for row in rows],
            **self._inputs(rows),
        }
        kept = {name: column for name, column in columns.items() if name not in self._settings.redact}
        facts = {MODEL: self._model.encode(), SERVED: str(self._hour.served).encode()}
        out = pa.BufferOutputStream()
        pq.write_table(pa.table(kept).replace_schema_metadata(facts), out)
        return bytes(out.getvalue())

    def _inputs(self, rows: list[SampledRow]) -> dict[str, Any]:
        import numpy as np
        import pyarrow as pa

        values = np.stack([row.x.ravel() for row in rows])
        names = [feature.name for feature in self._spec.features]
        if len(names) == values.shape[1]:
            return {
                f"x.{name}": pa.array(values[:, i]) for i, name in enumerate(names) if name not in self._settings.redact
            }
        return {INPUT: pa.array(values.tolist(), pa.list_(pa.from_numpy_dtype(values.dtype)))}

    def _remove_old(self) -> None:
        files = sorted(self._settings.folder.glob("*.parquet"), key=lambda path: path.name, reverse=True)
        total = 0
        for i, path in enumerate(files):
            total += path.stat().st_size
            if i and (i >= self._settings.hours or total > self._settings.megabytes * 10**6):
                path.unlink(missing_ok=True)
