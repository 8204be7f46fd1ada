"""Which of the candidate's answers were live, where its counters do not have it: those after its mirror ended."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from holdfast.kubernetes.objects import Json, annotations
from holdfast.serving.rollout.cluster.store import PREFIX
from holdfast.serving.rollout.contract.counters import Reading
from holdfast.serving.rollout.contract.driver import Provider

MIRRORED = f"{PREFIX}mirrored"
"""The candidate's answers when the mirror ended. Counters are a scrape old: so are up to a scrape's worth of
mirrored answers counted as live."""


@dataclass
class LiveAnswers:
    """Reads a provider; the mark is kept in an annotation, so that the next driver counts on from it."""

    provider: Provider
    mark: int | None = None
    probed: Callable[[], int] = lambda: 0
    """The candidate's answers to probes so far, of those that the provider counts."""
    _probed_before: int = field(default=0, init=False)
    """The part of them before the mark."""
    _live: int = field(default=0, init=False)

    def note(self, found: Json | None, weight: int) -> None:
        """Sets the mark at the first live weight, before `weight` is applied to what was found.

        Raises:
            RolloutError: the provider does not know what was answered so far.
        """
        if not weight:
            self.mark, self._live = None, 0
        elif self.mark is None:
            self.mark = _marked(found)
            if self.mark is None:
                self.mark = self.provider.read().candidate.answered
                self._probed_before = self.probed()

    def text(self, weight: int) -> str | None:
        """The annotation that belongs to `weight`."""
        return str(self.mark) if weight and self.mark is not None else None

    def read(self) -> Reading:
        """The provider's counters, with live and mirrored answers apart."""
        counted = self.provider.read()
        if counted.live or counted.mirrored:
            return counted
        answered = counted.candidate.answered
        if self.mark is None:
            return replace(counted, mirrored=answered)
        # Probes are known at once, counters a scrape later: what was live stays so.
        self._live = max(self._live, answered - self.mark - (self.probed() - self._probed_before))
        return replace(counted, live=self._live, mirrored=max(answered - self._live, 0))

    def learn(self, found: Json) -> None:
        """Takes up the mark that an earlier driver set."""
        if self.mark is None:
            self.mark = _marked(found)


def _marked(found: Json | None) -> int | None:
    text = annotations(found).get(MIRRORED, "") if found is not None else ""
    return int(text) if text.isdecimal() else None
