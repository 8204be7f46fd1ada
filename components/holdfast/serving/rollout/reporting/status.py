"""The state of a rollout, as one small file that its controller keeps and others read.

The file is replaced by rename and not synced: it is for people, decisions rest on the journal.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.folder import replace_file
from holdfast.artifacts.regular import read_at_most
from holdfast.errors import RolloutError
from holdfast.processes import started
from holdfast.serving.rollout.contract.counters import Arm, Observation
from holdfast.serving.rollout.engine.analysis import ALPHA_SHARES, Limits, bound, slow_answers
from holdfast.serving.rollout.engine.machine import TERMINAL, Rollout, desired
from holdfast.serving.rollout.reporting.timeline import Sent

FILE = "status.json"
MAX_BYTES = 2**18
EVERY_SECONDS = 0.25
"""Between two writes; a transition or a page is written at once."""
MOST = 1e12
"""E-values beyond it mean no more, and JSON has no infinity."""
MOVES = 8
"""Transitions that are kept."""


@dataclass(frozen=True)
class Move:
    """A transition that is in effect."""

    at: float
    """Unix seconds."""
    before: str
    after: str
    weight: int
    reason: str


@dataclass(frozen=True)
class Measure:
    """A sequential test: what it has, and what it needs to end the rollout."""

    name: str
    value: float
    needed: float


@dataclass(frozen=True)
class ArmStatus:
    """One arm, since the rollout began."""

    answered: int = 0
    failed: int = 0
    slow: int = 0


@dataclass(frozen=True)
class DriverProcess:
    """The process that drives, with its start, which no later process of the same number has."""

    pid: int
    ticks: int
    """When it started, in the kernel's ticks since boot."""
    fence: int = 0

    @classmethod
    def here(cls, fence: int = 0) -> "DriverProcess":
        """This process."""
        return cls(os.getpid(), started(os.getpid()) or 0, fence)

    @property
    def runs(self) -> bool:
        """Whether it is alive on this machine."""
        return started(self.pid) == self.ticks


@dataclass(frozen=True)
class Status:
    """The state of a rollout."""

    rollout: str
    """Its name for logs and metrics."""
    name: str
    version: int
    champion: int | None
    driver: DriverProcess
    began: float
    """Unix seconds."""
    at: float
    """When this was written, Unix seconds."""
    since: float
    """When the current state was entered, Unix seconds."""
    state: str = "Pending"
    weight: int = 0
    reason: str = "models are fetched, checked and started"
    cause: Cause = Cause.NONE
    """Where the fault was, from the decision to take the candidate out."""
    ended: bool = False
    act: str | None = None
    """The transition under way, or what keeps being tried."""
    page: str | None = None
    """Why a person is needed."""
    blind_seconds: float = 0.0
    retries: int = 0
    ttl_seconds: float = 0.0
    """How long the lease of a weight lasts that no driver renews; then the weight is taken back."""
    asks_approval: bool = False
    approved: bool = False
    here: int = 0
    """The candidate's own answers in this state,"""
    wanted: int = 0
    """and how many it must give."""
    candidate_answers: ArmStatus = ArmStatus()
    champion_answers: ArmStatus = ArmStatus()
    pairs: int = 0
    disagreements: int = 0
    attacks: int = 0
    fooled: int = 0
    sent: int = 0
    """Client requests that ended,"""
    failed: int = 0
    """and those without a whole answer."""
    tests: tuple[Measure, ...] = ()
    bound: float = 1.0
    """Newcombe's upper bound of the candidate's failure share minus the champion's."""
    margin: float = 0.0
    """What the bound must be below for a promotion."""
    moves: tuple[Move, ...] = ()


@dataclass
class StatusFile:
    """Keeps `status.json`; implements `holdfast.serving.rollout.reporting.announce.Listener`."""

    file: Path
    traffic: Sent
    status: Status
    _written: float = field(default=float("-inf"), init=False)
    _known: bool = field(default=False, init=False)
    """Whether `since` is of the state that the driver is in."""

    def observed(self, rollout: Rollout, seen: Observation) -> None:
        """The counts as they are now."""
        since = self.status.since if self._known else time.time() - rollout.seconds
        self._known = True
        self.status = replace(self._counted(rollout), since=since)
        self._write(now=False)

    def moved(self, before: Rollout, after: Rollout) -> None:
        """A new state."""
        now = time.time()
        move = Move(now, before.name, after.name, desired(after).weight, after.judgement.reason)
        moves = (*self.status.moves, move)[-MOVES:]
        self._known = True
        self.status = replace(self._counted(after), since=now, moves=moves, act=None, retries=0)
        self._write(now=True)

    def paged(self, rollout: Rollout, reason: str) -> None:
        """A person is needed."""
        self.status = replace(self.status, page=reason)
        self._write(now=True)

    def keeps(self, kind: str, facts: Mapping[str, object]) -> None:
        """An act that begins, or is tried again."""
        if kind == "intent":
            self.status = replace(
                self.status, act=f"{facts['before']} -> {facts['after']}", reason=str(facts["reason"])
            )
        elif kind == "retry":
            tries = self.status.retries + 1
            self.status = replace(self.status, retries=tries, act=f"trying again ({tries}): {facts['reason']}")
        elif kind == "approved":
            self.status = replace(self.status, approved=True)
        else:
            return
        self._write(now=True)

    def _counted(self, rollout: Rollout) -> Status:
        limits, total, probes = rollout.plan.limits, rollout.total, rollout.total.probes
        edges = rollout.last.edges_ms if rollout.last is not None else ()
        in_shadow = desired(rollout).shadow
        return replace(
            self.status,
            state=rollout.name,
            weight=desired(rollout).weight,
            reason=rollout.judgement.reason,
            cause=rollout.judgement.cause,
            ended=rollout.state in TERMINAL,
            blind_seconds=round(rollout.blind, 1),
            asks_approval=rollout.plan.approval,
            approved=rollout.approved,
            here=rollout.here.mirrored if in_shadow else rollout.here.live,
            wanted=rollout.here_step.requests,
            candidate_answers=_answers(total.candidate, edges, limits),
            champion_answers=_answers(total.champion, edges, limits),
            pairs=probes.pairs,
            disagreements=probes.disagreements,
            attacks=probes.attacks,
            fooled=probes.fooled,
            tests=measures(rollout),
            bound=round(bound(total, excused=not limits.probation), 5),
            margin=limits.margin,
        )

    def _write(self, *, now: bool) -> None:
        moment = time.monotonic()
        if not now and moment - self._written < EVERY_SECONDS * 0.9:
            return
        self._written = moment
        write(self.file, replace(self.status, at=time.time(), sent=self.traffic.sent, failed=self.traffic.failed))


def measures(rollout: Rollout) -> tuple[Measure, ...]:
    """The tests that can end this rollout, with what each needs."""
    limits = rollout.plan.limits
    return tuple(
        Measure(name, round(min(value, MOST), 4), round(needed(name, limits.alpha), 4))
        for name, value in rollout.tests.values().items()
        if armed(name, limits)
    )


def needed(name: str, alpha: float) -> float:
    """The e-value at which the test `name` ends a rollout whose false alarms may be `alpha` altogether."""
    return 1 / (alpha * ALPHA_SHARES[name])


def armed(name: str, limits: Limits) -> bool:
    """Whether the plan gives the test something to hold the candidate to, and counts that speak of it."""
    probed = limits.min_pairs > 0
    asked = {"service": limits.max_errors is not None, "attack": limits.max_attack is not None}
    return asked.get(name, probed or name not in ("broken", "disagreement", "drift"))


def write(file: Path, status: Status) -> None:
    """Replaces the status; a reader never sees half of one. Raises nothing: a full disk ends no rollout."""
    with contextlib.suppress(OSError):
        replace_file(file, json.dumps(asdict(status)).encode(), sync=False)


def read(file: Path) -> Status | None:
    """The status in `file`; None when there is none.

    Raises:
        RolloutError: the file has no meaning.
    """
    try:
        data = read_at_most(file, MAX_BYTES, "a status", error=RolloutError)
    except RolloutError:
        if not os.path.lexists(file):
            return None
        raise
    try:
        return TypeAdapter(Status).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RolloutError(f"{file}: expected a status: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _answers(arm: Arm, edges: tuple[float, ...], limits: Limits) -> ArmStatus:
    return ArmStatus(arm.answered, arm.failed, slow_answers(arm, edges, limits.slow_ms))
