"""A rollout that is told about: the real state machine on counters made by hand, and the real listeners on files."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import Count, RolloutRecord, Transition, Verdict
from holdfast.serving.envoy.config import EDGES_MS
from holdfast.serving.rollout.contract.counters import Arm, NoData, Observation, Probes, Reading
from holdfast.serving.rollout.engine import machine
from holdfast.serving.rollout.engine.machine import Rollout
from holdfast.serving.rollout.engine.plan import plan_of
from holdfast.serving.rollout.reporting import log, metrics, status
from holdfast.serving.rollout.reporting.announce import WatcherGroup
from holdfast.serving.rollout.reporting.status import DriverProcess, Status
from holdfast.workload.schema import RolloutPlan

BEGAN = 1_700_000_000.0


@dataclass
class Sent:
    """What clients were answered."""

    sent: int = 1234
    failed: int = 2


class Told:
    """Walks a rollout and tells the listeners what a controller would."""

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True)
        self.state = state
        config = RolloutPlan(shadow_requests=50, steps=(20, 100), step_requests=50, max_errors=0.02)
        self.rollout: Rollout = machine.begin(plan_of(config, classes=3, attacks=None, probation=False))
        self.now = Reading(edges_ms=EDGES_MS)
        about = Status("tiny-2-1", "tiny", 2, 1, DriverProcess.here(3), BEGAN, BEGAN, BEGAN, ttl_seconds=3.0)
        self.sent = Sent()
        self.status = status.StatusFile(state / status.FILE, self.sent, about)
        self.log = log.Log(state / log.FILE, "tiny-2-1", 3)
        self.metrics = metrics.MetricsFile(state / metrics.FILE, Sent(), {"name": "tiny", "version": "2"})
        self.listeners = (self.status, self.log, self.metrics)
        self.everybody = WatcherGroup(self.listeners)

    def move(self, after: Rollout) -> None:
        for listener in self.listeners:
            facts = {"before": self.rollout.name, "after": after.name, "reason": after.judgement.reason}
            listener.keeps("intent", facts)
        before, self.rollout = self.rollout, after
        self.everybody.moved(before, after)

    def start(self) -> None:
        self.move(machine.start(self.rollout))

    def look(self, *, candidate=(60, 0), champion=(200, 0), weight=None) -> None:
        """One more second: (answered, failed) at either arm, 25 pairs of which one differs."""
        now, probes = self.now, self.now.probes
        self.now = replace(
            now,
            at=now.at + 1.0,
            candidate=grown(now.candidate, *candidate),
            champion=grown(now.champion, *champion),
            live=now.live + candidate[0],
            mirrored=now.mirrored + candidate[0],
            probes=Probes(probes.pairs + 25, probes.disagreements + 1, (0, 0, 0), (0, 0, 0)),
            weight=weight,
        )
        self._take_in(self.now)

    def blind(self, reason: str) -> None:
        self.now = replace(self.now, at=self.now.at + 1.0)
        self._take_in(NoData(self.now.at, reason))

    def _take_in(self, seen: Observation) -> None:
        after = machine.observe(self.rollout, seen)
        self.everybody.observed(replace(after, state=self.rollout.state), seen)
        if (after.state, after.step) != (self.rollout.state, self.rollout.step):
            self.move(after)
        else:
            self.rollout = after


def grown(arm: Arm, answered: int, failed: int) -> Arm:
    """Every answer within 2 ms."""
    total = arm.answered + answered
    within = tuple(total if edge >= 2 else 0 for edge in EDGES_MS)
    return Arm(total, arm.failed + failed, total, within)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "rollout"


@pytest.fixture
def told(tmp_path: Path) -> Told:
    """Nothing has happened yet."""
    return Told(tmp_path / ".rollout.rollout")


@pytest.fixture
def in_canary(told: Told) -> Told:
    """At 20 %, a few answers in."""
    told.start()
    told.look()  # the first one only says where the counters stand
    told.look()
    told.look(candidate=(10, 1))
    assert told.rollout.name == "Canary 20 %", told.rollout.judgement
    return told


@pytest.fixture
def record() -> RolloutRecord:
    """A rollback."""
    moves = [("Pending", "Shadow", 0, "both servers are ready"), ("Shadow", "RollingBack", 0, "too slow")]
    return RolloutRecord(
        name="tiny",
        candidate_version=2,
        champion_version=1,
        transitions=tuple(
            Transition(
                state_before=before, state_after=after, weight=weight, reason=reason,
                candidate=Count(k=0, n=9), champion=Count(k=0, n=9), evidence={"t": 1.5},
            )
            for before, after, weight, reason in moves
        ),
        requests_sent=900,
        requests_failed=0,
        outcome="rolled-back",
        reason="too slow",
        cause=Cause.MODEL,
        verdict=Verdict.FAIL,
    )  # fmt: skip
