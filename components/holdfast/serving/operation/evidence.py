"""Is a served model's rate of failures above its limit? Evidence that may be read at every look of a period.

A period is divided into stretches of an hour. Half of the money is on one test over the whole period, which finds small
effects; the other half is divided over the stretches, so that a model that turns bad after weeks is found as quickly as
one that is bad from the start: a test that has seen a million good answers would take long to notice. A stretch's share
waits at 1 until the stretch begins, so the sum is an e-process: while the rate keeps to its limit, it reaches 1 / alpha
at some time of the period with probability at most alpha (Ville). It begins again with the next period.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from holdfast.statistics.eprocess import mixed

STRETCH_SECONDS = 3600.0
ODDS: tuple[float, ...] = (1.2, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Alternatives: the odds of the limit times these, with equal stakes."""


@dataclass(frozen=True)
class AboveLimit:
    """Is a rate above `limit`, in (0, 1)? The mean of likelihood ratios against it.

    Each ratio grows with the number of failures, so its expectation is at most 1 for every rate up to the limit.
    """

    limit: float
    logs: tuple[float, ...] = (0.0,) * len(ODDS)

    def add(self, hits: int, trials: int) -> Self:
        """After `trials` more answers with `hits` failures."""
        more = (hits * math.log(odds) - trials * math.log1p(self.limit * (odds - 1)) for odds in ODDS)
        return replace(self, logs=tuple(log + one for log, one in zip(self.logs, more, strict=True)))

    @property
    def value(self) -> float:
        """Evidence against "at most the limit"; at most 1e300."""
        return mixed(self.logs, (1 / len(ODDS),) * len(ODDS))


@dataclass(frozen=True)
class RateWatch:
    """One rate against its limit, over a period."""

    limit: float
    stretches: int
    """Of a period."""
    whole: AboveLimit
    current: AboveLimit
    banked: float = 0.0
    """Sum of the final values of the stretches that ended."""
    ended: int = 0

    @classmethod
    def of(cls, limit: float, stretches: int) -> Self:
        """Without evidence."""
        return cls(limit, stretches, AboveLimit(limit), AboveLimit(limit))

    def add(self, hits: int, trials: int) -> Self:
        """After `trials` more answers with `hits` failures."""
        return replace(self, whole=self.whole.add(hits, trials), current=self.current.add(hits, trials))

    def next_stretch(self) -> Self:
        """When an hour has ended; after the last one of a period the evidence begins again."""
        if self.ended + 1 >= self.stretches:
            return type(self).of(self.limit, self.stretches)
        banked = min(self.banked + self.current.value, 1e300)
        return replace(self, banked=banked, ended=self.ended + 1, current=AboveLimit(self.limit))

    @property
    def value(self) -> float:
        """Evidence against "at most the limit"."""
        waiting = self.stretches - self.ended - 1
        return 0.5 * self.whole.value + 0.5 * (self.banked + self.current.value + waiting) / self.stretches


@dataclass(frozen=True)
class OperationEvidence:
    """Everything that was seen of one model in operation."""

    model: str
    """Digest."""
    began: float
    """Unix seconds."""
    watches: Mapping[str, RateWatch]
    """By signal; the chance of a false rollback is divided evenly over them."""
    stretch: int = 0
    decided: str | None = None
    """Why it is taken back; None: it is not."""

    def at(self, now: float) -> Self:
        """With all stretches ended that have ended by `now`."""
        found, wanted = self, int(max(now - self.began, 0) // STRETCH_SECONDS)
        for _ in range(min(wanted - found.stretch, 10_000)):
            watches = {name: watch.next_stretch() for name, watch in found.watches.items()}
            found = replace(found, watches=watches, stretch=found.stretch + 1)
        return replace(found, stretch=max(wanted, found.stretch))

    def add(self, counts: Mapping[str, tuple[int, int]]) -> Self:
        """After more (failures, answers), by signal; a signal that is not watched is left out."""
        added = {name: watch.add(*counts[name]) if name in counts else watch for name, watch in self.watches.items()}
        return replace(self, watches=added)

    def proof(self, alpha: float) -> str | None:
        """The sentence by which the model is taken back; None: nothing is proven."""
        least = len(self.watches) / alpha
        for name, watch in self.watches.items():
            if watch.value >= least:
                return f"{name}: a share above {watch.limit:g} is proven (evidence {watch.value:.3g} of {least:.3g})"
        return None
