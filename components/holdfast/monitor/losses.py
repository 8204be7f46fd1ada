"""Stage three: is the served model's loss above the bound that the gate recorded? Evidence while labels come in.

l: the loss of a labelled row in [0, 1], for a class 1 if the answer was wrong. u: what the gate recorded, one minus
the lower bound of the accuracy, so that the alarm means "worse than what was approved". g: a guess of the loss, made
without the label (one minus the confidence), known of all N rows of a batch, with mean G. Rows to be labelled are
drawn with replacement, row i with chance 1 / (k_i N); k is the row's factor. Then x = k (l - w g) + w G has the mean
loss of the batch as its expectation for any weight w, and less variance where the guess is good (prediction-powered
inference: Angelopoulos and others, Science 382, 2023; with betting, arXiv:2602.02229; drawn by the guess: Zrnic and
Candes, Active Statistical Inference, 2024, arXiv:2403.03208).

**Why it is valid.** A batch's draws are independent given the past, for any rows. x is at least -w r, where
r = max k g - G is known from the draw, so a stake c in (0, 1] pays 1 + c (x - u) / (u + w r) >= 0, at most 1 on
average while the mean loss of the rows is at most u. w is chosen from earlier rows only. So each wealth is a
supermartingale, and so is their sum with money that is fixed beforehand: it exceeds 1 / alpha at *any* time with
probability at most alpha (Ville; Waudby-Smith and Ramdas, 2024, arXiv:2010.09686). No calibration of the confidence is
assumed: a guess that is no good makes the test slow, not wrong. Where all rows get a label, or those of a plain random
sample without guesses, x = l, and the mean is the expected loss given the past.

Labels that did not come at random (of complaints, of refused cases) show nothing about the rows that have none: the
caller leaves the guesses out, and calls the result one about selected labels.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from holdfast.statistics.eprocess import log_sum, mixed

STAKES: tuple[float, ...] = (0.02, 0.05, 0.12, 0.3, 0.7)
"""Shares of the largest stake, with equal money."""
AT_ONCE = 0.5
"""Share of the money that is staked from the first label on; the rest follows, because a model may turn bad late."""
HALF_STAKED = 500
"""Labels after which half of the rest is staked."""
CHUNK = 25
"""Labels between two choices of the weight."""
_LEAST_ROWS = 50
"""Earlier labels that a weight is chosen from; before them it is 1, right for a calibrated confidence."""
UNIFORM = 0.5
"""Share of the draws that do not look at the guess: errors that it does not see cost at most twice the labels."""

PerRow = NDArray[np.float64]


def chances(guesses: PerRow) -> PerRow:
    """The chance of each row to be drawn, float64[N] with sum 1: half alike, half as the square root of its guess.

    Args:
        guesses: of N > 0 rows, each in [0, 1].
    """
    roots = np.sqrt(guesses)
    by_guess = roots / roots.sum() if roots.sum() > 0 else np.full(len(guesses), 1 / len(guesses))
    return UNIFORM / len(guesses) + (1 - UNIFORM) * by_guess


@dataclass(frozen=True)
class Labelled:
    """Labelled rows of one batch, float64[n] each, in the order in which they were drawn."""

    losses: PerRow
    """In [0, 1]."""
    guesses: PerRow
    """Of the same rows, in [0, 1]."""
    factors: PerRow
    """k of each: 1 / (N times its chance); 1 for a plain random sample."""
    mean_guess: float = 0.0
    """G, over all rows of the batch."""
    reach: float = 0.0
    """r: the largest k g over all rows of the batch, less G."""

    @classmethod
    def alone(cls, losses: PerRow) -> Self:
        """Labels without guesses, or labels that were selected."""
        return cls(losses, np.zeros(len(losses)), np.ones(len(losses)))

    @classmethod
    def drawn(cls, losses: PerRow, rows: NDArray[np.int64], guesses: PerRow) -> Self:
        """Labels of `rows`, int64[n], that were drawn by `chances(guesses)` from the batch with these guesses."""
        factors = 1 / (len(guesses) * chances(guesses))
        reach = float((factors * guesses).max() - guesses.mean())
        return cls(losses, guesses[rows], factors[rows], float(guesses.mean()), reach)


@dataclass(frozen=True)
class Moments:
    """Sums of k l, k g and their products over earlier rows, from which the weight is chosen."""

    rows: int = 0
    losses: float = 0.0
    guesses: float = 0.0
    squares: float = 0.0
    products: float = 0.0

    def add(self, losses: PerRow, guesses: PerRow) -> Self:
        """With more rows."""
        return type(self)(
            self.rows + len(losses),
            self.losses + float(losses.sum()),
            self.guesses + float(guesses.sum()),
            self.squares + float((guesses**2).sum()),
            self.products + float((losses * guesses).sum()),
        )

    @property
    def weight(self) -> float:
        """The weight with the least variance on these rows, in [0, 1]; 1 with fewer than 50."""
        if self.rows < _LEAST_ROWS:
            return 1.0
        variance = self.squares - self.guesses**2 / self.rows
        covariance = self.products - self.losses * self.guesses / self.rows
        return min(max(covariance / variance, 0.0), 1.0) if variance > 0 else 0.0


@dataclass(frozen=True)
class LossEvidence:
    """Evidence against "the mean loss is at most `bound`"."""

    bound: float
    """What the gate recorded, in (0, 1)."""
    moments: Moments = Moments()
    labels: int = 0
    losses: float = 0.0
    """The sum of k l; for the reader, the test does not use it."""
    logs: tuple[float, ...] = (math.log(AT_ONCE),) * len(STAKES)
    """Of what each stake has become, for money of 1."""

    def add(self, batch: Labelled) -> Self:
        """The evidence after the labels of one more batch."""
        found = self
        for start in range(0, len(batch.losses), CHUNK):
            found = found._add(batch, slice(start, start + CHUNK))
        return found

    @property
    def value(self) -> float:
        """At least 1 / alpha at some time with probability at most alpha while the model is as approved."""
        return min(mixed(self.logs, (1 / len(STAKES),) * len(STAKES)) + waiting(self.labels), 1e300)

    def _add(self, batch: Labelled, rows: slice) -> Self:
        losses, guesses = (batch.factors[rows] * values[rows] for values in (batch.losses, batch.guesses))
        weight = self.moments.weight
        gains = losses - weight * (guesses - batch.mean_guess) - self.bound
        shares = gains / (self.bound + weight * batch.reach)
        labels = self.labels + len(losses)
        money = math.log(waiting(self.labels) - waiting(labels))
        logs = tuple(
            log_sum(log, money) + float(np.log1p(stake * shares).sum())
            for stake, log in zip(STAKES, self.logs, strict=True)
        )
        moments = self.moments.add(losses, guesses)
        return type(self)(self.bound, moments, labels, self.losses + float(losses.sum()), logs)


def waiting(labels: int) -> float:
    """The money that is not yet staked after so many labels."""
    return (1 - AT_ONCE) * HALF_STAKED / (HALF_STAKED + labels)
