"""Ends the rollout that runs for an output folder, so that another one can begin there; light."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.folder import DOCUMENT
from holdfast.errors import RolloutError
from holdfast.progress import say
from holdfast.registry.notes import Note
from holdfast.serving.rollout import registry_worker
from holdfast.serving.rollout.engine.controller import Ask, OperatorRequest
from holdfast.serving.rollout.engine.journal import JOURNAL, Journal, open_journal, state_folder
from holdfast.serving.rollout.engine.requests import ask
from holdfast.serving.rollout.local import launch
from holdfast.serving.rollout.local.driver import LocalDriver
from holdfast.serving.rollout.reporting import log, status
from holdfast.serving.rollout.reporting.status import Status
from holdfast.waiting import poll

SECONDS = 120.0


def supersede(out: Path, reason: str) -> Path | None:
    """Returns when the candidate of the rollout that ran for `out` is out of traffic and that rollout has ended.

    Its record, or what there is of it when its driver was dead, is the folder returned; None: nothing ran.

    Raises:
        RolloutError: its driver runs and did not end in time, or the candidate could not be taken out.
    """
    state = state_folder(out)
    found = status.read(state / status.FILE)
    if found is None and not (state / JOURNAL).exists():
        return None
    kept = out.with_name(f"{out.name}-superseded-{time.time() * 1000:.0f}")
    if found is not None and found.driver.runs:
        ask(state, OperatorRequest(Ask.ABORT, reason))
        _wait(state, found)
        if (out / DOCUMENT).exists():
            out.rename(kept)
    if (state / JOURNAL).exists():
        _take_over(out, found, kept, reason)
    shutil.rmtree(state, ignore_errors=True)
    return kept if kept.exists() else None


def _wait(state: Path, found: Status) -> None:
    drives = poll(lambda: state.exists() and found.driver.runs, lambda drives: not drives, SECONDS, 0.1)
    if drives:
        raise RolloutError(
            f"{state}: cannot supersede: process {found.driver.pid} still drives the rollout, "
            f"{SECONDS:g} s after it was asked to abort"
        )


def _take_over(out: Path, found: Status | None, kept: Path, reason: str) -> None:
    """A driver that died left servers, maybe, and no verdict: this is the driver that ends it."""
    state = state_folder(out)
    with open_journal(state / JOURNAL) as journal:
        running = launch.find(state)
        if running is not None:
            driver = LocalDriver(running.socket, journal.fence)
            driver.ask("remove")
            launch.end(running, driver)
        journal.write("end", state="Inconclusive", reason=reason)
        _note(out, journal, found, reason)
        kept.mkdir(exist_ok=True)
        for name in (JOURNAL, log.FILE):
            if (state / name).exists():
                shutil.copyfile(state / name, kept / name)


def _note(out: Path, journal: Journal, found: Status | None, reason: str) -> None:
    created: dict[str, Any] = next((dict(entry) for entry in journal.earlier if "began" in entry), {})
    try:
        fetched = json.loads((journal.path.parent / registry_worker.FETCHED).read_bytes())
        note = Note(
            version=fetched["version"],
            outcome="inconclusive",
            reason=reason,
            began=float(created["began"]),
            ended=round(time.time(), 3),
            champion_before=found.champion if found else fetched["champion"],
            model=created["digests"]["candidate"],
            decision=fetched["decision"],
            cause=Cause.OPERATOR,
        )
        registry_worker.leave_note(out, fetched["tracking"], fetched["name"], note)
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"rollout: {out}: nothing to note about the rollout before ({error!r})")
