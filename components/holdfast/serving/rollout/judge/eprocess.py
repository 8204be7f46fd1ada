"""Tests that may be looked at as often as one likes: e-processes on counts of failures.

An e-process starts at 1 and, when nothing is wrong, exceeds 1/alpha at *any* time with probability at most alpha
(Ville). `TwoArm` compares the candidate with a concurrent control, so that an incident which hits both is nobody's
fault: Turner, Ly and Gruenwald, "Generic e-variables for exact sequential k-sample tests that allow for optional
stopping" (2024, arXiv:2106.02693). `OneArm` compares one rate with a limit known beforehand.

theta_c, theta_s: failure rates of candidate and stable (control); m: how many times theta_s the candidate may be at.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MULTIPLIERS: Floats = np.array([1.5, 2, 3, 5, 10, 30, 90])
"""Alternatives, mixed with equal weights."""
PRIOR_RATE = 0.01
PRIOR_WEIGHT = 50
HIGHEST = 0.99
"""No alternative claims certainty."""
_SHARES: Floats = np.array([0.1, 0.25, 0.5, 0.75, 0.9])


def control_rate(failed: "Floats | float", answered: "Floats | float") -> Floats:
    """The plug-in estimate of theta_s from the control's past, with a prior of 1 % worth 50 answers."""
    return np.asarray((PRIOR_RATE * PRIOR_WEIGHT + failed) / (PRIOR_WEIGHT + answered), dtype=np.float64)


def log_factors(candidate: tuple[Floats, Floats], control: tuple[Floats, Floats], rate: Floats) -> Floats:
    """Log e-values float64[..., 7] of one block, per multiplier.

    Args:
        candidate: (failed, answered) of the block, float64[...].
        control: the same.
        rate: theta_s estimated from earlier blocks only.
    """
    (k_c, n_c), (k_s, n_s) = ((k[..., None], n[..., None]) for k, n in (candidate, control))
    theta_s = rate[..., None]
    theta_c = np.minimum(MULTIPLIERS * theta_s, HIGHEST)
    # The null hypothesis nearest to the alternative: one common rate.
    total = n_c + n_s
    theta_0 = np.where(total > 0, (n_c * theta_c + n_s * theta_s) / np.maximum(total, 1), theta_s)
    return np.asarray(_log_likelihood(k_c, n_c, theta_c, theta_0) + _log_likelihood(k_s, n_s, theta_s, theta_0))


def log_mean_exp(values: Floats) -> Floats:
    """log of the mean of exp over the last axis."""
    highest = values.max(axis=-1)
    return np.asarray(highest + np.log(np.exp(values - highest[..., None]).mean(axis=-1)))


@dataclass(frozen=True)
class TwoArm:
    """Is the candidate's failure rate above the control's?"""

    logs: tuple[float, ...] = (0.0,) * len(MULTIPLIERS)
    failed: int = 0
    """Of the control so far."""
    answered: int = 0

    def add(self, *, candidate: tuple[int, int], control: tuple[int, int]) -> Self:
        """The test after one more block of (failed, answered) at either arm; the order inside a block is nothing."""
        rate = control_rate(float(self.failed), float(self.answered))
        more = log_factors(_pair(candidate), _pair(control), rate)
        logs = tuple(float(x) for x in np.array(self.logs) + more)
        return type(self)(logs, self.failed + control[0], self.answered + control[1])

    @property
    def value(self) -> float:
        """Evidence against "not worse than the control"; at most 1e300."""
        return _bounded(np.array(self.logs))


@dataclass(frozen=True)
class OneArm:
    """Is a rate above `limit`?"""

    limit: float
    logs: tuple[float, ...] = (0.0,) * len(_SHARES)

    def add(self, hits: int, trials: int) -> Self:
        """The test after `trials` more with `hits` of what should be rare."""
        if not 0 < self.limit < 1:
            return self
        alternatives = self.limit + (1 - self.limit) * _SHARES
        more = _log_likelihood(np.float64(hits), np.float64(trials), alternatives, np.full(len(_SHARES), self.limit))
        return type(self)(self.limit, tuple(float(x) for x in np.array(self.logs) + more))

    @property
    def value(self) -> float:
        """Evidence against "at most the limit"; at most 1e300."""
        return _bounded(np.array(self.logs))


def _log_likelihood(k: "Floats | np.float64", n: "Floats | np.float64", theta: Floats, theta_0: Floats) -> Floats:
    """Log likelihood ratio of theta against theta_0 for k failures of n."""
    return np.asarray(k * np.log(theta / theta_0) + (n - k) * np.log1p(-theta) - (n - k) * np.log1p(-theta_0))


def _pair(counts: tuple[int, int]) -> tuple[Floats, Floats]:
    return np.float64(counts[0]) * np.ones(()), np.float64(counts[1]) * np.ones(())


def _bounded(logs: Floats) -> float:
    return float(np.exp(np.minimum(log_mean_exp(logs), 690.0)))
