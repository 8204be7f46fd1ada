"""Which of the candidate's answers were live, where its counters do not say: those after its mirror ended."""

from dataclasses import dataclass, replace

from holdfast.serving.rollout.drivers.driver import Provider
from holdfast.serving.rollout.drivers.kube import Json, annotations
from holdfast.serving.rollout.drivers.store import PREFIX
from holdfast.serving.rollout.judge.counters import Snapshot

MIRRORED = f"{PREFIX}mirrored"
"""What the candidate had answered when the mirror ended. Counters are a scrape old: so are up to a scrape's worth of
mirrored answers counted as live."""


@dataclass
class Split:
    """Reads a provider; the mark stands in an annotation, so that the next driver counts on from it."""

    provider: Provider
    mark: int | None = None

    def note(self, found: Json | None, weight: int) -> None:
        """Before `weight` is applied to what was found: the first live weight sets the mark.

        Raises:
            RolloutError: the provider cannot say what was answered so far.
        """
        if not weight:
            self.mark = None
        elif self.mark is None:
            self.mark = _told(found)
            if self.mark is None:
                self.mark = self.provider.read().candidate.answered

    def text(self, weight: int) -> str | None:
        """The annotation that belongs to `weight`."""
        return str(self.mark) if weight and self.mark is not None else None

    def read(self) -> Snapshot:
        """The provider's counters, with live and mirrored told apart."""
        counted = self.provider.read()
        if counted.live or counted.mirrored:
            return counted
        answered = counted.candidate.answered
        mirrored = answered if self.mark is None else min(self.mark, answered)
        return replace(counted, live=answered - mirrored, mirrored=mirrored)

    def learn(self, found: Json) -> None:
        """Takes up the mark that an earlier driver set."""
        if self.mark is None:
            self.mark = _told(found)


def _told(found: Json | None) -> int | None:
    text = annotations(found).get(MIRRORED, "") if found is not None else ""
    return int(text) if text.isdecimal() else None
