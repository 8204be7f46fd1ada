"""Keeps what happened in a rollout for its record: every transition with its evidence, and a sample of every look."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from holdfast.artifacts.documents import Count, Transition
from holdfast.artifacts.timeline import Sample
from holdfast.progress import say
from holdfast.serving.rollout.contract.counters import Arm, Observation
from holdfast.serving.rollout.engine.analysis import evidence, slow_answers
from holdfast.serving.rollout.engine.machine import Rollout, State, desired


class Sent(Protocol):
    """What clients were answered so far."""

    @property
    def sent(self) -> int:
        """Client requests that ended, well or not."""

    @property
    def failed(self) -> int:
        """Requests of them without a whole answer."""


@dataclass
class Timeline:
    """Implements `holdfast.serving.rollout.engine.controller.Watcher`.

    Transitions are also written to a file as they happen, so that the record of a rollout whose driver died and was
    followed by another one has them all.
    """

    file: Path
    traffic: Callable[[], Sent]
    began: float = field(default_factory=time.monotonic)
    """On the machine's monotonic clock, which every process of this machine shares."""
    transitions: list[Transition] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    weight_zero_at: float | None = None
    """Monotonic second at which a rollback was in effect."""

    @classmethod
    def at(cls, file: Path, traffic: Callable[[], Sent]) -> "Timeline":
        """The timeline in `file`, with what drivers before this one wrote there."""
        kept = cls(file, traffic)
        for line in file.read_text().splitlines() if file.exists() else ():
            kept._take_in(line)
        return kept

    def observed(self, rollout: Rollout, seen: Observation) -> None:
        """A sample; what a look did not see stays as it was."""
        self._sample(rollout)

    def moved(self, before: Rollout, after: Rollout) -> None:
        """A transition that is in effect."""
        if after.state is State.ROLLING_BACK:
            self.weight_zero_at = time.monotonic()
        transition = self._transition(before, after)
        self.transitions.append(transition)
        self._sample(after)
        self._write({"began": self.began, "zero": self.weight_zero_at, "moved": transition.model_dump(mode="json")})
        say(f"rollout: {before.name} -> {after.name}: {transition.reason}")

    def paged(self, rollout: Rollout, reason: str) -> None:
        """One loud line."""
        say(f"rollout: PAGE: {reason}")

    def _take_in(self, line: str) -> None:
        try:
            found = json.loads(line)
            if "moved" in found:
                self.transitions.append(Transition.model_validate(found["moved"]))
                self.began, self.weight_zero_at = float(found["began"]), found["zero"]
            else:
                self.samples.append(Sample(**found["sample"]))
        except (ValueError, KeyError, TypeError):
            return  # torn by a crash

    def _write(self, value: object) -> None:
        """No fsync: the journal is what a decision rests on; this is for people."""
        try:
            with self.file.open("a") as stream:
                stream.write(json.dumps(value) + "\n")
        except OSError as error:
            say(f"rollout: {self.file}: {error.strerror}; the record will miss a moment")

    def _transition(self, before: Rollout, after: Rollout) -> Transition:
        tally = self.traffic()
        return Transition(
            state_before=before.name,
            state_after=after.name,
            weight=desired(after).weight,
            reason=after.judgement.reason,
            candidate=_count(after.total.candidate),
            champion=_count(after.total.champion),
            evidence={
                "t": round(time.monotonic() - self.began, 3),
                "sent": tally.sent,
                "failed": tally.failed,
                **evidence(after.tests, after.total),
            },
        )

    def _sample(self, rollout: Rollout) -> None:
        candidate, champion, probes = rollout.total.candidate, rollout.total.champion, rollout.total.probes
        tally = self.traffic()
        edges = rollout.last.edges_ms if rollout.last is not None else ()
        slow = rollout.plan.limits.slow_ms
        sample = Sample(
            t=round(time.monotonic() - self.began, 3),
            state=rollout.name,
            weight=desired(rollout).weight,
            sent=tally.sent,
            failed=tally.failed,
            candidate_requests=candidate.answered,
            candidate_errors=candidate.failed,
            champion_requests=champion.answered,
            champion_errors=champion.failed,
            slow_candidate=slow_answers(candidate, edges, slow),
            slow_champion=slow_answers(champion, edges, slow),
            disagreement=round(probes.disagreements / max(probes.pairs, 1), 4),
            **{f"e_{name}": round(value, 4) for name, value in rollout.tests.values().items()},
        )
        self.samples.append(sample)
        self._write({"sample": asdict(sample)})


def _count(arm: Arm) -> Count:
    return Count(k=arm.failed, n=arm.answered)
