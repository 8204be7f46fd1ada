"""What a replay has counted so far, as a small file that other processes read. Importing this loads nothing heavy.

The file is replaced by rename, so a reader finds a whole tally or none; `at` is its time.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from holdfast.artifacts.regular import read_at_most
from holdfast.errors import RolloutError
from holdfast.serving.rollout.contract.counters import Probes

MAX_TALLY_BYTES = 2**20


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
    """Requests of them without a whole answer; the sum of `failures`."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Counts by kind: `status` (another than 200), `shape` (not what was promised, or NaN), `connection`, `timeout`."""
    first_failure: str | None = None
    """Kind and words of the first one."""
    answers: Mapping[str, int] = field(default_factory=dict)
    """Whole answers by the arm that the response names: header `x-rollout`, else `model_version`."""
    latency_ms: Latency = Latency()
    probes: Probes = Probes()
    attack_rows: int = 0
    """Adversarial rows that the replay has to send."""
    attack_rows_fooling: int = 0
    """Rows of them that fooled the judged model offline."""
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
    from holdfast.artifacts.folder import replace_file

    replace_file(path, as_json(tally), sync=False)


def read_tally(path: Path) -> Tally:
    """The tally at `path`.

    Raises:
        RolloutError: there is none, or it is torn, too large or not a tally.
    """
    data = read_at_most(path, MAX_TALLY_BYTES, "the tally of a replay", error=RolloutError)
    try:
        return _parsed(data)
    except ValueError as error:
        raise RolloutError(f"{path}: expected a whole tally, found {len(data)} bytes that are none: {error}") from None


def as_json(tally: Tally) -> bytes:
    """One line of JSON."""
    return json.dumps(asdict(tally), separators=(",", ":")).encode() + b"\n"


def _parsed(data: bytes) -> Tally:
    """The tally of exactly these bytes: no other type or field, and no number below 0 or without end."""
    from pydantic import TypeAdapter, ValidationError

    try:
        found = TypeAdapter(Tally).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for name, value in _numbers(asdict(found)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name}: expected a count or a time, found {value}")
    if as_json(found) != data:
        raise ValueError("expected the fields that are written, found others")
    return found


def _numbers(values: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Each number in nested values, with the name of its field."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _numbers(value, key)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _numbers(value, name)
    elif isinstance(values, int | float):
        yield name, values
