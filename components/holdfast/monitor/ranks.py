"""Do windows of requests come from where earlier windows came from? Evidence that may be read after every window.

Every window has a score, larger the less it looks like the others. The window that came last is compared with all
windows so far, itself among them; r of those n scores are at least as large as its own. If all windows are
exchangeable (their order means nothing), r / n is at most each of 1/n ... 1 with exactly that probability, for any
past ranks, however the rows inside a window depend on each other, and for any score that treats all windows
alike (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, chapter 7).

**Why it is valid.** A stake that pays f(r, n) for rank r with f falling in r and mean over r = 1 ... n of 1 neither
gains nor loses on average, and ties can only make r larger. So the wealth is a supermartingale, and so is a sum of
wealths whose starting money is fixed beforehand: it exceeds 1 / alpha at *any* time with probability at most alpha
(Ville). Ranks by several scores of the same windows may be mixed: given all windows so far as a set, the last one is
a uniform draw from it, for any ranks before.

**What is staked.** The period's money goes in little by little, the same share with each window, for a change may
begin at any of them. A `streak` that is k windows old pays n / k if the rank is at most k: after a sudden change the
k-th changed window has at most k - 1 others above it. The powers k (r/n)^(k - 1) are for changes that are slow.

What breaks the promise: an order that means something without drift. A daily cycle is met by comparing each window
with those of its own hour (`season` in `holdfast.monitor.binned`); a slow wandering of the traffic is drift.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

STREAK_SHARE = 0.6
STREAK = 6
"""The age from which on a streak pays n / 6 for a rank of at most 6."""
POWERS: tuple[float, ...] = (0.1, 0.3, 0.6)


@dataclass(frozen=True)
class RankEvidence:
    """Evidence against "these windows are exchangeable", over one period of `horizon` windows."""

    horizon: int
    """Windows over which the money is staked; a month of hours has 720."""
    windows: int = 0
    streaks: tuple[float, ...] = (0.0,) * STREAK
    powers: tuple[float, ...] = (0.0,) * len(POWERS)

    def add(self, rank: int, of: int) -> Self:
        """The evidence after one more window.

        Args:
            rank: how many of the scores are at least as large as this window's, in [1, of]; its own is one of them.
            of: windows so far, this one among them.
        """
        money = 1 / self.horizon if self.windows < self.horizon else 0.0
        return type(self)(
            self.horizon,
            self.windows + 1,
            _streaks(self.streaks, STREAK_SHARE * money, rank, of),
            _powers(self.powers, (1 - STREAK_SHARE) * money / len(POWERS), rank, of),
        )

    @property
    def value(self) -> float:
        """At least 1 / alpha at some time with probability at most alpha while nothing changes; at most 1e300."""
        waiting = max(0.0, 1 - self.windows / self.horizon)
        return min(waiting + sum(self.streaks) + sum(self.powers), 1e300)


@dataclass(frozen=True)
class MixedRanks:
    """Several scores of the same windows, each with an equal share of the money."""

    evidence: tuple[RankEvidence, ...]

    @classmethod
    def of(cls, scores: int, horizon: int) -> Self:
        """Before the first window of a period."""
        return cls((RankEvidence(horizon),) * scores)

    def add(self, scores: NDArray[np.float64]) -> Self:
        """The evidence after the window whose scores are last.

        Args:
            scores: float64[windows so far, scores], all of them computed with the last window known.
        """
        ranks = (scores >= scores[-1]).sum(axis=0).tolist()
        return type(self)(tuple(one.add(rank, len(scores)) for one, rank in zip(self.evidence, ranks, strict=True)))

    @property
    def value(self) -> float:
        """The mean of the evidence by each score."""
        return sum(one.value for one in self.evidence) / len(self.evidence)


def quickest(stable: int, alpha: float, horizon: int) -> int:
    """In how many windows a change is found that no stable window resembles, wherever the changed ones rank.

    Args:
        stable: windows recorded before the change; the fewer, the slower.
        alpha: chance of a false alarm in a period.
        horizon: windows in a period.
    """
    evidence, found = RankEvidence(horizon), 0
    while evidence.value < 1 / alpha and found < horizon:
        found += 1
        evidence = evidence.add(found, stable + found)
    return found


def _streaks(held: tuple[float, ...], money: float, rank: int, of: int) -> tuple[float, ...]:
    """Every streak is one window older; those of the last age stay there."""
    *young, oldest = held
    aged = [money, *young]
    aged[-1] += oldest
    return tuple(stake * max(of / age, 1.0) if rank <= age else 0.0 for age, stake in enumerate(aged, start=1))


def _powers(held: tuple[float, ...], money: float, rank: int, of: int) -> tuple[float, ...]:
    return tuple((stake + money) * _pays(power, rank, of) for power, stake in zip(POWERS, held, strict=True))


def _pays(power: float, rank: int, of: int) -> float:
    """The mean of power p^(power - 1) over p from (rank - 1) / of to rank / of: its mean over all ranks is 1."""
    return float(of ** (1 - power) * (rank**power - (rank - 1) ** power))
