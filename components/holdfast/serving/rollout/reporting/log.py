"""The structured log of a rollout: one JSON object per transition, page, spell without counters, or repeated act."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from holdfast.artifacts.cause import Cause
from holdfast.progress import say
from holdfast.serving.rollout.contract.counters import NoData, Observation, Reading
from holdfast.serving.rollout.engine.machine import Rollout, desired

FILE = "log.jsonl"


@dataclass
class Log:
    """Implements `holdfast.serving.rollout.reporting.announce.Listener`; appends to `file`, without fsync."""

    file: Path
    rollout: str
    """Its name in every line."""
    fence: int
    _state: str = field(default="Pending", init=False)
    _weight: int = field(default=0, init=False)
    _blind_since: float | None = field(default=None, init=False)
    _told: bool = field(default=False, init=False)
    """Whether people know that the log cannot be written."""

    def observed(self, rollout: Rollout, seen: Observation) -> None:
        """The first look of a spell that sees nothing, and the first one after it."""
        self._stand(rollout)
        if isinstance(seen, NoData) and self._blind_since is None:
            self._blind_since = seen.at
            self._line("blind", seen.reason)
        elif isinstance(seen, Reading) and self._blind_since is not None:
            spell, self._blind_since = seen.at - self._blind_since, None
            self._line("sees", f"counters are there again after {spell:.1f} s", seconds=round(spell, 3))

    def moved(self, before: Rollout, after: Rollout) -> None:
        """A transition that is in effect."""
        self._stand(after)
        judged = after.judgement
        cause = {} if judged.cause is Cause.NONE else {"cause": judged.cause.value}
        self._line("transition", judged.reason, before=before.name, evidence=judged.evidence, **cause)

    def paged(self, rollout: Rollout, reason: str) -> None:
        """A person is needed."""
        self._stand(rollout)
        self._line("page", reason)

    def keeps(self, kind: str, facts: Mapping[str, object]) -> None:
        """What has to be done again, was approved, or went on after a crash; what was done comes with `moved`."""
        if kind not in ("intent", "done"):
            rest = {key: value for key, value in facts.items() if key not in ("reason", "state")}
            self._line(kind, str(facts.get("reason", "")), **rest)

    def _stand(self, rollout: Rollout) -> None:
        self._state, self._weight = rollout.name, desired(rollout).weight

    def _line(self, event: str, reason: str, **more: object) -> None:
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "rollout": self.rollout,
            "fence": self.fence,
            "event": event,
            "state": self._state,
            "weight": self._weight,
            "reason": reason,
            **more,
        }
        try:
            with self.file.open("a") as stream:
                stream.write(json.dumps(entry) + "\n")
        except OSError as error:
            if not self._told:
                self._told = True
                say(f"rollout: {self.file}: {error.strerror}; the log will miss lines")
