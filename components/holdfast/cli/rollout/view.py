"""What is known about the rollout of an output folder: while it runs, when its driver is dead, after it ended."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import RolloutRecord
from holdfast.artifacts.folder import DOCUMENT, Artifact, load
from holdfast.errors import RolloutError
from holdfast.rendering.text import Row, clock, duration, paragraphs
from holdfast.serving.rollout.reporting import status as state_file
from holdfast.serving.rollout.reporting.status import Measure, Status


class DriverStatus(StrEnum):
    """Whether a process drives the rollout."""

    RUNS = "runs"
    """The driver lives; so it does after the verdict, until the record is written."""
    GONE = "gone"
    """The rollout has not ended, and its driver is dead."""
    ENDED = "ended"


@dataclass(frozen=True)
class View:
    """The rollout of one output folder."""

    out: Path
    driver_status: DriverStatus
    status: Status | None
    """What its driver wrote last; None when there is only the record."""
    record: Artifact[RolloutRecord] | None

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        status = None if self.status is None else asdict(self.status)
        record = None if self.record is None else self.record.document.model_dump(mode="json")
        return {"driver": str(self.driver_status), "status": status, "record": record}


def see(out: Path, state: Path) -> View:
    """What `state` (the folder of a rollout under way) and `out` (its record) say.

    Raises:
        RolloutError: there is neither.
    """
    status = state_file.read(state / state_file.FILE)
    if status is not None:
        over = DriverStatus.ENDED if status.ended else DriverStatus.GONE
        return View(out, DriverStatus.RUNS if status.driver.runs else over, status, None)
    if not (out / DOCUMENT).exists():
        raise RolloutError(f"{out}: expected a rollout that runs, or its record, found neither")
    return View(out, DriverStatus.ENDED, None, load(out, RolloutRecord))


def text(view: View) -> str:
    """One screen."""
    if view.status is None and view.record is not None:
        return _ended(view.record)
    assert view.status is not None
    status = view.status
    tested = (("test", "e-value", "ends at"), *tests(status.tests)) if status.tests else ()
    return paragraphs(
        ((f"{title(status)}   [{status.rollout}]",),),
        facts(view, time.time()),
        counts(status),
        tested,
        ((bound(status),),) if tested else (),
        moves(status),
    )


def title(status: Status) -> str:
    """Candidate and champion."""
    if not status.driver.fence:  # the champion is not known yet
        return f"{status.name} version {status.version}"
    champion = f"champion version {status.champion}" if status.champion else "no champion (on probation)"
    return f"{status.name} version {status.version} against {champion}"


def facts(view: View, now: float) -> tuple[Row, ...]:
    """State, weight, why it waits, and who drives."""
    assert view.status is not None
    status = view.status
    missing = f"; {status.here} of {status.wanted} answers" if status.wanted and not status.ended else ""
    rows: list[Row] = [
        ("state", f"{status.state}, for {duration(now - status.since)} since {clock(status.since)}{missing}"),
        ("weight", f"{status.weight} % of live traffic on the candidate"),
        ("because", status.reason),
        *words(status.cause),
        ("driver", driver(view, now)),
        ("clients", f"{status.sent} sent, {status.failed} failed"),
    ]
    if status.act and not status.ended:
        rows.insert(rows.index(("because", status.reason)) + 1, ("under way", status.act))
    if status.asks_approval:
        said = "given" if status.approved else "not given yet: holdfast rollout promote"
        rows.append(("approval", said))
    if status.blind_seconds:
        rows.append(("blind", f"no counters for {status.blind_seconds:g} s"))
    if status.page:
        rows.append(("PAGE", status.page))
    return tuple(rows)


def words(cause: str) -> tuple[Row, ...]:
    """Where the fault was and what to do; nothing while there is none."""
    if cause not in list(Cause) or cause == Cause.NONE:
        return ()
    return ("cause", f"{cause}: {Cause(cause).words}"), ("what to do", Cause(cause).advice)


def driver(view: View, now: float) -> str:
    """The process that drives, and when it was heard."""
    assert view.status is not None
    process, heard = view.status.driver, duration(now - view.status.at)
    who = f"process {process.pid}, fence {process.fence}"
    if view.driver_status is DriverStatus.RUNS:
        return f"runs ({who}), heard {heard} ago"
    if view.driver_status is DriverStatus.ENDED:
        return f"ended ({who}), {heard} ago"
    ttl = view.status.ttl_seconds
    lease = f"its lease ends after {ttl:g} s and the weight is taken back; " if ttl else ""
    return f"DEAD ({who}), heard {heard} ago; {lease}start with the same --out goes on from here"


def counts(status: Status) -> tuple[Row, ...]:
    """Answers of both arms and what the probes found."""
    arms = (("candidate", status.candidate_answers), ("champion", status.champion_answers))
    rows = [(name, str(arm.answered), str(arm.failed), str(arm.slow)) for name, arm in arms]
    pairs = (f"{status.pairs} pairs", f"{status.disagreements} disagree")
    attacks = (f"{status.attacks} attacks", f"{status.fooled} succeed") if status.attacks else ()
    return ("", "answered", "failed", "slow"), *rows, ("probes", *pairs, *attacks)


def tests(found: tuple[Measure, ...]) -> tuple[Row, ...]:
    """Each test, its e-value and what it needs."""
    return tuple((one.name, f"{one.value:.4g}", f"{one.needed:.4g}") for one in found)


def bound(status: Status) -> str:
    """What a promotion still needs to prove."""
    return (
        f"the candidate may fail {status.bound:.2%} more often (95 % bound); "
        f"a promotion needs less than {status.margin:.2%}"
    )


def moves(status: Status) -> tuple[Row, ...]:
    """The last transitions, newest last."""
    return tuple((clock(move.at), f"{move.before} -> {move.after}", move.reason) for move in status.moves)


def line(view: View) -> str:
    """One line, for a log; equal as long as nothing of weight happens."""
    if view.status is None:
        assert view.record is not None
        return f"ended: {view.record.document.outcome}: {view.record.document.reason}"
    status = view.status
    dead = "" if view.driver_status is DriverStatus.RUNS else f"; driver {view.driver_status}"
    page = f"; PAGE: {status.page}" if status.page else ""
    blind = "; blind" if status.blind_seconds else ""
    return f"{status.state}, weight {status.weight} %{blind}{dead}{page}"


def wait(out: Path, state: Path, until: Callable[[View], bool], seconds: float) -> View:
    """Looks until `until` holds, or the rollout has ended or lost its driver, at most `seconds`.

    Raises:
        RolloutError: nothing of it came in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        view = see(out, state)
        if view.driver_status is not DriverStatus.RUNS or until(view):
            return view
        if time.monotonic() > deadline:
            raise RolloutError(f"{out}: the driver did not act within {seconds:g} s: {line(view)}")
        time.sleep(0.1)


def _ended(record: Artifact[RolloutRecord]) -> str:
    document = record.document
    champion = document.candidate_version if document.outcome == "promoted" else document.champion_version
    rows = (
        ("outcome", document.outcome),
        ("because", document.reason),
        *words(document.cause),
        ("serves now", f"version {champion}" if champion else "no champion"),
        ("clients", f"{document.requests_sent} sent, {document.requests_failed} failed"),
        ("driver", "ended"),
        ("record", f"{record.folder} ({record.digest[:12]}…)"),
    )
    incident = record.folder / "incident.md"
    more = (("incident", str(incident)),) if incident.exists() else ()
    steps = tuple(
        (f"{t.evidence.get('t', 0):.2f} s", f"{t.state_before} -> {t.state_after}", t.reason)
        for t in document.transitions
    )
    return paragraphs(((f"{document.name} version {document.candidate_version}",),), (*rows, *more), steps)


def as_json(view: View) -> str:
    """One line of JSON."""
    return json.dumps(view.as_dict())
