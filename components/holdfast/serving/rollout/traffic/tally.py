"""What a replay has counted so far, as a small file that other processes read. No library but the standard one.

The file is replaced by rename, so a reader finds a whole tally or none; `at` says how fresh it is.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from holdfast.errors import RolloutError
from holdfast.serving.rollout.contract.counters import Probes

MAX_TALLY_BYTES = 2**20
_COUNTS = ("sent", "failed", "attack_rows", "attack_rows_fooling", "strays")


@dataclass(frozen=True)
class Latency:
    """Milliseconds of all client requests that ended, failed ones too; percentiles are at most 2 % too high."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


@dataclass(frozen=True)
class Tally:
    """Answers so far. Probes are not client requests and are counted apart."""

    sent: int = 0
    """Client requests that ended, well or not."""
    failed: int = 0
    """Of them, those without a whole answer; the sum of `failures`."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """By kind: `status` (another than 200), `shape` (not what was promised, or NaN), `connection`, `timeout`."""
    first_failure: str | None = None
    """Kind and words of the first one."""
    answers: Mapping[str, int] = field(default_factory=dict)
    """Whole answers by what the response says about its arm: header `x-rollout`, else `model_version`."""
    latency_ms: Latency = Latency()
    probes: Probes = Probes()
    attack_rows: int = 0
    """Adversarial rows that the replay has to send."""
    attack_rows_fooling: int = 0
    """Of them, those that fooled the judged model offline."""
    strays: int = 0
    """Probes that another than the arm asked has answered: the addresses do not tell the arms apart."""
    lag: float = 0.0
    """Longest, in seconds, that the machine kept the replay waiting in the last second."""
    at: float = 0.0
    """When this was written: seconds on this machine's monotonic clock."""
    ended: bool = False
    """Whether this is the last one."""


def write_tally(path: Path, tally: Tally) -> None:
    """Replaces the tally at `path`; a reader never sees half of one. It need not survive a crash."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(as_json(tally))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_tally(path: Path) -> Tally:
    """The tally at `path`.

    Raises:
        RolloutError: there is none, or it is torn, too large or not a tally.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_TALLY_BYTES + 1)
    except OSError as error:
        raise RolloutError(f"{path}: expected the tally of a replay, found none ({error.strerror})") from None
    if len(data) > MAX_TALLY_BYTES:
        raise RolloutError(f"{path}: expected at most {MAX_TALLY_BYTES} bytes, found more")
    try:
        return _tally(json.loads(data))
    except (ValueError, TypeError, RecursionError) as error:
        raise RolloutError(f"{path}: expected a whole tally, found {len(data)} bytes that are none: {error}") from None


def as_json(tally: Tally) -> bytes:
    """One line of JSON."""
    return json.dumps(asdict(tally), separators=(",", ":")).encode() + b"\n"


def _tally(found: Any) -> Tally:
    values = _exactly(found, Tally)
    latency = _exactly(values["latency_ms"], Latency)
    first = values["first_failure"]
    return Tally(
        **{name: _count(values[name], name) for name in _COUNTS},
        failures=_counts(values["failures"], "failures"),
        first_failure=None if first is None else _a(str, first, "first_failure"),
        answers=_counts(values["answers"], "answers"),
        latency_ms=Latency(**{name: _seconds(value, name) for name, value in latency.items()}),
        probes=_probes(_exactly(values["probes"], Probes)),
        lag=_seconds(values["lag"], "lag"),
        at=_seconds(values["at"], "at"),
        ended=_a(bool, values["ended"], "ended"),
    )


def _probes(values: Mapping[str, Any]) -> Probes:
    counts = {name: _count(values[name], name) for name in ("pairs", "disagreements", "broken", "attacks", "fooled")}
    gained, lost = (tuple(_count(one, name) for one in _a(list, values[name], name)) for name in ("gained", "lost"))
    return Probes(**counts, gained=gained, lost=lost)


def _exactly(found: Any, kind: type[Any]) -> dict[str, Any]:
    expected = {one.name for one in fields(kind)}
    if not isinstance(found, dict) or set(found) != expected:
        names = sorted(found) if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"expected the fields {sorted(expected)}, found {names}")
    return dict(found)


def _counts(found: Any, name: str) -> dict[str, int]:
    return {_a(str, key, name): _count(value, name) for key, value in _a(dict, found, name).items()}


def _count(found: Any, name: str) -> int:
    if type(found) is not int or found < 0:
        raise ValueError(f"{name}: expected a count, found {found!r}")
    return found


def _seconds(found: Any, name: str) -> float:
    if type(found) not in (int, float) or not 0 <= found < float("inf"):
        raise ValueError(f"{name}: expected a finite time, found {found!r}")
    return float(found)


def _a(kind: type[Any], found: Any, name: str) -> Any:
    if type(found) is not kind:
        raise ValueError(f"{name}: expected {kind.__name__}, found {found!r}")
    return found
