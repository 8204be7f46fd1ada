"""The guard inside a predictor, for both faces: who asks, whether there is an answer, and what is left of it.

Nothing here is loaded where no guard is asked for.
"""

import fcntl
import hashlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from holdfast.errors import HoldfastError, WorkloadError
from holdfast.model.extract.step import read_budget
from holdfast.serving.guard.features import Tap
from holdfast.serving.guard.guard import Alarm, Guard, GuardAnswer, GuardLimits, Refusal
from holdfast.serving.guard.step import read_calibration
from holdfast.serving.guard.store import SqliteStore
from holdfast.serving.predictor.core import Answer, Predictor
from holdfast.serving.predictor.settings import GuardParameters
from holdfast.workload.schema import GuardConfig, GuardOutputs

FLAG = "holdfast_flag"
"""The parameter (V2) or tag (Seldon) of an answer that is held against its client."""
_DAY = 86_400.0
_LONGEST_NAME = 128
_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2)


class NotAnsweredError(HoldfastError):
    """The guard gives no answer; `status` is that of HTTP."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.status, self.retry_after = refusal.status, refusal.retry_after


class NoRecordsError(HoldfastError):
    """The guard cannot keep its records, and without them it answers no client."""


@dataclass(frozen=True)
class Asker:
    """Whose request it is."""

    header: str | None
    """The value of the header that names clients; None: it was not sent, or none is configured."""
    peer: str | None
    """The address of the other end; None: not known."""

    @property
    def name(self) -> str:
        """How the client is kept: `header:VALUE`, else `peer:ADDRESS`, else `unknown`."""
        if self.header is None and self.peer is None:
            return "unknown"
        found = f"header:{self.header}" if self.header is not None else f"peer:{self.peer}"
        if len(found) <= _LONGEST_NAME and found.isprintable():
            return found
        return f"{found.partition(':')[0]}-sha256:{hashlib.sha256(found.encode()).hexdigest()}"


@dataclass(frozen=True)
class Guarded:
    """An answer, and what the guard makes of it."""

    answer: Answer
    flag: str | None
    """What is held against the client, for the answer's `FLAG`; None: nothing, or the guard only observes."""


class GuardedPredictor:
    """A predictor whose clients are watched."""

    def __init__(self, predictor: Predictor, parameters: GuardParameters) -> None:
        """Opens the calibration and the records.

        Raises:
            RefusedError: the calibration was made for another model.
            ArtifactError: it is none, or was altered.
            WorkloadError: the settings have no meaning, or another process keeps these records.
        """
        self.config = read_config(parameters.config)
        self._predictor, self._tap = predictor, Tap(predictor.network, predictor.spec)
        _, calibration = read_calibration(parameters.calibration, predictor.model)
        limits = _limits(self.config, parameters, predictor)
        path = parameters.state / f"guard-{predictor.model.digest[:16]}.db"
        self._lock = _only_one(parameters, str(path))
        self._guard = Guard(calibration, limits, SqliteStore(path, predictor.model.digest))
        metrics()["alarmed"].set(self._guard.alarmed)

    def asker(self, headers: Mapping[str, str], peer: str | None) -> Asker:
        """Whose request it is; names of headers in lower case."""
        header = self.config.client_header
        return Asker(headers.get(header.lower()) if header else None, peer)

    def ask(self, asker: Asker, x: NDArray[np.generic]) -> Guarded:
        """The answer to rows that `Predictor.check` let through.

        Raises:
            NotAnsweredError: the mode is `refuse`, and something is held against the client.
            NoRecordsError: the mode is `refuse`, and the records cannot be written.
            ModelError: as `Predictor.answer`.
        """
        started = time.perf_counter()
        refusal = self._kept(lambda: self._guard.admit(asker.name, len(x), time.time()))
        if refusal is not None:
            metrics()["flagged"].labels(refusal.detector, "refuse").inc()
            raise NotAnsweredError(refusal)
        before = time.perf_counter()
        answer = self._predictor.answer(x)
        answered = time.perf_counter()
        samples = self._tap.samples(x, answer.label)
        found = self._kept(lambda: self._guard.judge(asker.name, samples, digests(x), time.time()))
        metrics()["seconds"].observe(time.perf_counter() - answered + before - started)
        return Guarded(answer, None) if found is None else self._acted(asker, answer, found)

    def close(self) -> None:
        """Writes what is only in memory."""
        self._guard.close()
        os.close(self._lock)

    def _kept(self, work: Any) -> Any:
        """What `work` returns; None where the records cannot be kept and the mode does not refuse."""
        try:
            return work()
        except sqlite3.Error as error:
            metrics()["errors"].inc()
            if self.config.mode == "refuse":
                raise NoRecordsError(f"the guard cannot keep its records: {error}") from error
            return None

    def _acted(self, asker: Asker, answer: Answer, found: GuardAnswer) -> Guarded:
        if found.alarm is not None:
            metrics()["alarmed"].set(self._guard.alarmed)
            _write_alarm(found.alarm, asker, self.config, self._predictor.model.digest)
        for detector in found.flagged:
            metrics()["flagged"].labels(detector, found.action).inc()
        if found.action == "refuse":
            raise NotAnsweredError(Refusal(found.flagged[0], "these queries are not those of a user of this model"))
        if found.action == "degrade":
            answer = degraded(answer, self.config.outputs or GuardOutputs())
        return Guarded(answer, ",".join(found.flagged) if found.action in ("flag", "degrade") else None)


def check_parameters(predictor: Predictor, parameters: GuardParameters) -> None:
    """Whether a guard can be made of these; opens nothing.

    Raises:
        HoldfastError: as `GuardedPredictor`.
    """
    _limits(read_config(parameters.config), parameters, predictor)
    read_calibration(parameters.calibration, predictor.model)


def read_config(given: Mapping[str, object]) -> GuardConfig:
    """The section `guard` of a workload.

    Raises:
        WorkloadError: an unknown key, or a value without meaning.
    """
    try:
        return GuardConfig.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise WorkloadError(f"guard.{key}: {first['msg']}") from None


def digests(x: NDArray[np.generic]) -> list[int]:
    """A number for each row, equal where their bytes are."""
    rows = np.ascontiguousarray(x)
    return [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "big", signed=True) for row in rows]


def degraded(answer: Answer, outputs: GuardOutputs) -> Answer:
    """The same labels with coarser probabilities."""
    found = answer.probabilities.astype(np.float64)
    if outputs.top1:
        n, classes = found.shape
        largest, place = found.max(1), found.argmax(1)
        found = np.repeat(((1 - largest) / max(classes - 1, 1))[:, None], classes, axis=1)
        found[np.arange(n), place] = largest
    return replace(answer, probabilities=found.round(outputs.round))


@cache
def metrics() -> dict[str, Any]:
    """Of this process, in the client library's own registry, which MLServer's metrics page shows."""
    from prometheus_client import Counter, Gauge, Histogram

    return {
        "flagged": Counter("holdfast_guard_flagged", "Requests held against clients.", ("detector", "action")),
        "alarmed": Gauge(
            "holdfast_guard_clients_alarmed", "Clients with an alarm; the pool of new ones counts as one."
        ),
        "seconds": Histogram("holdfast_guard_seconds", "Time of the guard for one request.", buckets=_BUCKETS),
        "errors": Counter("holdfast_guard_errors", "Requests whose record could not be kept."),
    }


def _limits(config: GuardConfig, parameters: GuardParameters, predictor: Predictor) -> GuardLimits:
    """What is asked of clients; a budget `auto` is what the report allows for this very model."""
    budget = config.budget
    if budget == "auto":
        if parameters.extraction is None:
            raise WorkloadError("guard.budget: auto: expected `extraction`, a report of `holdfast extract`, found none")
        budget = read_budget(parameters.extraction, predictor.model)
    return GuardLimits(config.mode, config.alpha, budget, config.budget_days * _DAY)


def _only_one(parameters: GuardParameters, path: str) -> int:
    """Holds the records for this process, until it ends."""
    parameters.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise WorkloadError(f"{path}: expected records that no other server keeps, found them in use") from None
    return lock


def _write_alarm(alarm: Alarm, asker: Asker, config: GuardConfig, model: str) -> None:
    """One line of JSON on standard error."""
    event = {
        "event": "holdfast_guard_alarm",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "client": alarm.client or "all new clients together",
        "identified_by": asker.name.partition(":")[0],
        "detector": alarm.detector,
        "rows": alarm.rows,
        "log_wealth": {"far": round(alarm.log_far, 3), "near": round(alarm.log_near, 3)},
        "alpha": config.alpha,
        "mode": config.mode,
        "model": model,
    }
    sys.stderr.write(json.dumps(event) + "\n")
    sys.stderr.flush()
