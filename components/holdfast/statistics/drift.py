"""Does the candidate predict other classes than the champion, on the same rows? Valid at any time.

For class c and pair i: X = 1[only the candidate predicts c] - 1[only the champion predicts c], in {-1, 0, 1}. The null
hypothesis is |E X| <= limit for every class; what both predict alike is no drift, for any rows.

**Why it is valid.** For a direction s of +1 or -1 and a stake l in (0, 1 / (1 + limit)), each pair multiplies the
wealth by 1 + l (s X - limit) >= 0, which has expectation 1 + l (s E X - limit) <= 1 under the null hypothesis, after
any past. So each product is a supermartingale, and so is their average over classes, directions and stakes, whose
numbers are fixed beforehand: Ville's bound holds under any stopping (Waudby-Smith and Ramdas, "Estimating means of
bounded random variables by betting", 2024, arXiv:2010.09686). A product depends on counts alone, so their order is
nothing.

Classes from the last slot on count as one class. A pair that swaps two of those is counted as gained and as lost; its
factor is then ((1 - l limit)^2 - l^2) / (1 - l limit), less than the 1 - l limit of a pair without a change, so the
evidence can only become smaller.
"""

import math
from dataclasses import dataclass
from itertools import zip_longest
from typing import Self

from holdfast.statistics.eprocess import mixed

MOST_CLASSES = 64
STAKES: tuple[float, ...] = (0.05, 0.15, 0.35, 0.65, 0.95)
"""Shares of the largest stake, mixed with equal weights."""


@dataclass(frozen=True)
class PredictionDrift:
    """Does the share of any class differ between candidate and champion by more than `limit`?"""

    limit: float
    classes: int = MOST_CLASSES
    """Fixed before the first pair: how many classes the evidence is averaged over, at most 64."""
    pairs: int = 0
    gained: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()

    def add(self, gained: tuple[int, ...], lost: tuple[int, ...], pairs: int) -> Self:
        """The test after `pairs` more.

        Args:
            gained: per class, in how many of them only the candidate predicted it.
            lost: per class, in how many of them only the champion predicted it.
            pairs: rows that both answered.
        """
        return type(self)(
            self.limit,
            self.classes,
            self.pairs + pairs,
            _sum(self.gained, self._pooled(gained)),
            _sum(self.lost, self._pooled(lost)),
        )

    @property
    def value(self) -> float:
        """Evidence against "no class drifts by more than the limit"; at most 1e300."""
        if not 0 <= self.limit < 1:
            return 1.0
        up, down = _sum(self.gained, (0,) * self._slots), _sum(self.lost, (0,) * self._slots)
        logs = [log for ones in zip(up, down, strict=True) for pair in (ones, ones[::-1]) for log in self._logs(*pair)]
        return mixed(logs, (1 / len(logs),) * len(logs))

    def _logs(self, toward: int, away: int) -> list[float]:
        """Log wealth per stake after so many +1 and -1."""
        stakes = (share / (1 + self.limit) for share in STAKES)
        return [
            toward * math.log1p(stake * (1 - self.limit))
            + away * math.log1p(-stake * (1 + self.limit))
            + (self.pairs - toward - away) * math.log1p(-stake * self.limit)
            for stake in stakes
        ]

    @property
    def _slots(self) -> int:
        return min(max(self.classes, 1), MOST_CLASSES)

    def _pooled(self, counts: tuple[int, ...]) -> tuple[int, ...]:
        """With everything from the last slot on in that slot."""
        last = self._slots - 1
        return (*counts[:last], sum(counts[last:])) if len(counts) > self._slots else counts


def _sum(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip_longest(left, right, fillvalue=0))
