"""The last act: a client copies the champion through its guarded server, while others ask as users do."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Count, GateDecision, GuardCalibration, Model, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load
from holdfast.processes import LOOPBACK, children, reserved_ports, wait_ready
from holdfast_pipelines.folder import place_of

CLIENTS, ROWS = 10, 30
"""Users, and the held-out rows that each asks."""
UNHINDERED = 1_000
"""Answers that a copy has for comparison, of the model alone."""
THIEF, HEADER = "thief", "x-client"
GUARD = {"mode": "refuse", "client_header": HEADER}
"""The section `guard` of the workload whose champion is copied."""
_SERVER, _SETTINGS = "guarded", "guard.json"
_EPOCHS, _SECONDS = 10, 10.0
_SAME = 1e-6
DigitRows = NDArray[np.float32]


@dataclass(frozen=True)
class Copied:
    """What came of it; every number was counted in this run."""

    answered: int
    """Queries of the thief that were answered."""
    refused: int
    """And those that were not."""
    copy: Count
    """Held-out rows to which a copy made of these answers gives the champion's class."""
    unhindered: Count
    """The same of a copy made of `UNHINDERED` answers."""
    asked: int
    """Rows that users asked."""
    harmed: int
    """Those of them without an answer, or with another than the model alone gives."""
    alarmed: Count
    """Users with an alarm."""

    def as_dict(self) -> dict[str, Any]:
        """For the summary."""
        counts = {"copy": self.copy, "unhindered": self.unhindered, "alarmed": self.alarmed}
        numbers = {"answered": self.answered, "refused": self.refused, "asked": self.asked, "harmed": self.harmed}
        return numbers | {name: {"k": count.k, "n": count.n} for name, count in counts.items()}


def copy_champion(run: Path, out: Path, *, name: str, seed: int) -> Copied:
    """Serves the model of `run` behind the guard that it calibrated, in mode refuse and has it asked; `out` is new.

    Raises:
        HoldfastError: the model cannot be served.
    """
    from holdfast.model.examples import kept_apart
    from holdfast.model.extract.queries import noise
    from holdfast.model.inputs import read_split
    from holdfast.serving.predictor.core import load_predictor

    out.mkdir()
    model, snapshot, decision = (Ref(place_of(run, kind)) for kind in (Model, Snapshot, GateDecision))
    _write_guard(out, place_of(run, GuardCalibration))
    predictor, chance = load_predictor(model, decision), np.random.default_rng(seed)
    held_out = np.asarray(read_split(load(snapshot, Snapshot), "test", predictor.spec).x, np.float32)
    usual = held_out[kept_apart(len(held_out), seed)]
    users = [usual[chance.permutation(len(usual))[:ROWS]] for _ in range(CLIENTS)]
    questions = noise(held_out, UNHINDERED, chance)

    def expected(x: DigitRows) -> NDArray[np.float64]:
        return np.asarray(predictor.answer(x).probabilities, np.float64)

    with _guarded(out, name, predictor.model, decision) as ask:
        given, refused, harmed = _asked(ask, questions, users, expected)
    with_alarm = _alarmed((out / _SERVER / f"{_SERVER}.log").read_text())
    agrees = partial(_agreement, predictor.model.document, held_out, expected(held_out).argmax(1), seed)
    return Copied(
        answered=len(given),
        refused=refused,
        copy=agrees(questions[: len(given)], np.array(given)),
        unhindered=agrees(questions, expected(questions)),
        asked=CLIENTS * ROWS,
        harmed=harmed,
        alarmed=Count(k=sum(f"header:{_user(one)}" in with_alarm for one in range(CLIENTS)), n=CLIENTS),
    )


AskClient = Callable[[str, DigitRows], list[float] | None]
"""Client and row: the probabilities; None: no answer."""


def _asked(
    ask: AskClient, questions: DigitRows, users: list[DigitRows], expected: Callable[[DigitRows], NDArray[np.float64]]
) -> tuple[list[list[float]], int, int]:
    """The answers to the thief, how many it did not get, and users' rows that were not answered as by the model alone.

    The thief asks one row whenever a user asks one, until the users are done, and goes on after it was refused.
    """
    given: list[list[float]] = []
    refused = harmed = 0
    for number in range(CLIENTS * ROWS):
        stolen = ask(THIEF, questions[number])
        given += [stolen] if stolen is not None and not refused else []
        refused += stolen is None
        row = users[number % CLIENTS][number // CLIENTS]
        found = ask(_user(number % CLIENTS), row)
        harmed += found is None or bool(np.abs(np.array(found) - expected(row[None])[0]).max() > _SAME)
    return given, refused, harmed


def _agreement(
    model: Model, rows: DigitRows, labels: NDArray[np.int64], seed: int, asked: DigitRows, answers: NDArray[np.float64]
) -> Count:
    """Rows to which a copy made of these answers gives these labels."""
    from holdfast.model.extract.ways import way_of

    copy = way_of(model.input, len(model.classes), epochs=_EPOCHS, device="cpu").copy(seed)
    if len(asked):
        copy.learn(asked, answers / answers.sum(1, keepdims=True))
    return Count(k=int((copy.labels(rows) == labels).sum()), n=len(rows))


@contextmanager
def _guarded(out: Path, name: str, model: Artifact[Model], decision: Ref) -> Iterator[AskClient]:
    """A server of the model with a guard, and what asks it."""
    from holdfast.serving.predictor.settings import Served, read_guard
    from holdfast.serving.rollout.contract.served_arm import ServedArm
    from holdfast.serving.rollout.local.servers import start_server

    served = Served(name, 1, Ref(model.folder, model.digest), decision, guard=read_guard(out / _SETTINGS))
    with children() as started, reserved_ports(2) as (rest, grpc):
        started.append(start_server(out, _SERVER, ServedArm(served, model), rest=rest, grpc=grpc))
        asyncio.run(wait_ready(started[0], partial(_is_ready, rest, name)))
        connection = HTTPConnection(LOOPBACK, rest, timeout=_SECONDS)
        yield partial(_ask, connection, f"/v2/models/{name}/infer")
        connection.close()


def _ask(connection: HTTPConnection, path: str, client: str, row: DigitRows) -> list[float] | None:
    from holdfast.serving.protocol import body

    connection.request("POST", path, body(row), {"content-type": "application/json", HEADER: client})
    response = connection.getresponse()
    answer = json.loads(response.read())
    if response.status != 200:
        return None
    return next(list(map(float, one["data"])) for one in answer["outputs"] if one["name"] == "probabilities")


async def _is_ready(port: int, name: str) -> bool:
    connection = HTTPConnection(LOOPBACK, port, timeout=_SECONDS)
    try:
        connection.request("GET", f"/v2/models/{name}/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _write_guard(out: Path, calibration: Path) -> None:
    """The settings of the guard, by the workload's section of the run that calibrated it."""
    settings = {"calibration": str(calibration), "state": "clients", **GUARD}
    (out / _SETTINGS).write_text(json.dumps(settings))


def _alarmed(log: str) -> set[str]:
    """The clients with an alarm, from the lines of JSON in a server's log."""
    events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return {str(event["client"]) for event in events if event.get("event") == "holdfast_guard_alarm"}


def _user(number: int) -> str:
    return f"user-{number + 1}"
