"""What comes back: answers, read number by number, and the counts of all of them."""

import math
import time
from collections import deque
from dataclasses import dataclass, field, replace

from holdfast.serving.protocol import Reply, read_reply
from holdfast.serving.rollout.contract.arms import ARM_HEADER
from holdfast.serving.rollout.contract.counters import Probes
from holdfast.serving.rollout.traffic.rows import Attacks
from holdfast.serving.rollout.traffic.tally import Latency, Tally
from holdfast.serving.rollout.traffic.wire import Failed, HttpResponse, header

MOST_ARMS = 16
LAGS = 10
"""Timers whose lateness is kept."""
SILENT = ("503", "504")
"""Statuses of no answer in time: a busy machine causes them too."""


def read(outcome: HttpResponse | Failed, classes: int) -> Reply | Failed:
    """What came, as a reply or as why there is none; an arm that the router names goes before the model's version."""
    if isinstance(outcome, Failed):
        return outcome
    if outcome.status != 200:
        return Failed("status", f"{outcome.status}: {outcome.body[:200].decode(errors='replace')}")
    try:
        reply = read_reply(outcome.body, classes)
    except ValueError as error:
        return Failed("shape", str(error))
    arm = header(outcome.head, ARM_HEADER.encode())
    return reply if arm is None else replace(reply, version=arm.decode(errors="replace"))


def silent(failed: Failed) -> bool:
    """Whether no answer came in time; the router's own counters have it too, as slow answers or as failures."""
    return failed.kind == "timeout" or (failed.kind == "status" and failed.reason.startswith(SILENT))


class Times:
    """A histogram of milliseconds whose edges lie 2 % apart, from 0.01 ms on."""

    _LOWEST, _GROWTH = 0.01, math.log(1.02)

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._max = 0.0

    def add(self, milliseconds: float) -> None:
        """One more."""
        bucket = math.ceil(math.log(max(milliseconds, self._LOWEST) / self._LOWEST) / self._GROWTH)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._max = max(self._max, milliseconds)

    def latency(self) -> Latency:
        """Percentiles of all so far."""
        p50, p95, p99 = (self._percentile(share) for share in (0.5, 0.95, 0.99))
        return Latency(p50, p95, p99, round(self._max, 3))

    def _percentile(self, share: float) -> float:
        """The upper edge of the bucket that holds it, never above the largest value."""
        rank, seen = share * sum(self._counts.values()), 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return round(min(self._LOWEST * math.exp(bucket * self._GROWTH), self._max), 3)
        return 0.0


@dataclass
class TrafficCounts:
    """Everything that was counted so far."""

    classes: int
    attacks: Attacks
    sent: int = 0
    reached: bool = False
    """Whether a connection was ever made."""
    failures: dict[str, int] = field(default_factory=dict)
    first_failure: str | None = None
    answers: dict[str, int] = field(default_factory=dict)
    times: Times = field(default_factory=Times)
    pairs: int = 0
    gained: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    broken: int = 0
    attacked: int = 0
    fooled: int = 0
    strays: int = 0
    """Probes that another than the arm asked has answered."""
    lags: deque[float] = field(default_factory=lambda: deque(maxlen=LAGS))
    """How much later than asked the last timers woke this process, in seconds."""

    def __post_init__(self) -> None:
        self.gained, self.lost = [0] * self.classes, [0] * self.classes

    def client(self, reply: Reply | Failed, seconds: float) -> None:
        """One client request ended."""
        self.sent += 1
        self.times.add(1000 * seconds)
        if isinstance(reply, Failed):
            self.reached |= reply.sent
            self.failures[reply.kind] = self.failures.get(reply.kind, 0) + 1
            self.first_failure = self.first_failure or " ".join(f"{reply.kind}: {reply.reason}".split())[:300]
            return
        self.reached = True
        if reply.version is not None:
            arm = reply.version[:80]
            arm = arm if arm in self.answers or len(self.answers) < MOST_ARMS else "others"
            self.answers[arm] = self.answers.get(arm, 0) + 1

    def pair(self, stable: Reply | Failed, candidate: Reply | Failed) -> None:
        """Counts two answers to the same row. Where the champion failed, nothing can be compared."""
        if isinstance(stable, Failed):
            return
        if isinstance(candidate, Failed):
            self.broken += not silent(candidate)
            return
        self.pairs += 1
        if stable.label != candidate.label:
            self.gained[candidate.label] += 1
            self.lost[stable.label] += 1

    def attack(self, reply: Reply | Failed, label: int) -> None:
        """The candidate was asked an adversarial row."""
        if isinstance(reply, Reply):
            self.attacked += 1
            self.fooled += reply.label != label

    def tally(self, *, ended: bool) -> Tally:
        """The counts as of now."""
        return Tally(
            sent=self.sent,
            failed=sum(self.failures.values()),
            failures=dict(self.failures),
            first_failure=self.first_failure,
            answers=dict(self.answers),
            latency_ms=self.times.latency(),
            probes=Probes(
                pairs=self.pairs,
                disagreements=sum(self.gained),
                gained=tuple(self.gained),
                lost=tuple(self.lost),
                broken=self.broken,
                attacks=self.attacked,
                fooled=self.fooled,
            ),
            attack_rows=len(self.attacks.bodies),
            attack_rows_fooling=self.attacks.fooling,
            strays=self.strays,
            lag=max(self.lags, default=0.0),
            at=time.monotonic(),
            ended=ended,
        )
