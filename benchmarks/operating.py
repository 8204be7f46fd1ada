"""What the rollout's tests do over thousands of simulated rollouts: vectorized, with the formulas of the judge.

Ratio: nine control answers per candidate answer, unless said otherwise. A rollout is looked at every `look` candidate
answers. The table is the project's own study of the rule that the judge follows (two arms 90:10, evidence of 20, then
Newcombe's bound below one percentage point), made beforehand with code of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from holdfast.serving.rollout.judge.eprocess import MULTIPLIERS, RESERVE, RESERVE_LASTS, WEIGHTS
from holdfast.serving.rollout.judge.intervals import newcombe_upper

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RATIO = 9
ALPHA = 0.05
MARGIN = 0.01
_CHUNK = 1000


@dataclass(frozen=True)
class Traffic:
    """Failure rates of both arms, and how long and how often one looks."""

    candidate: float
    control: float
    requests: int
    """Of the candidate."""
    look: int = 10
    after: int = 0
    """Candidate requests after which the rates become `later`, of candidate and control; 0: never."""
    later: tuple[float, float] = (0.0, 0.0)

    def rates(self) -> tuple[Floats, Floats]:
        """Of candidate and control, float64[looks]."""
        start = np.arange(0, self.requests, self.look)
        changed = (start >= self.after) & (self.after > 0)
        return np.where(changed, self.later[0], self.candidate), np.where(changed, self.later[1], self.control)


@dataclass(frozen=True)
class Found:
    """How each simulated rollout ended."""

    at: Floats
    """Candidate requests until the rollback, inf where there was none, float64[runs]."""
    served: Ints
    """Failures that the candidate served until then, int64[runs]."""
    bounds: Floats
    """Newcombe's bound at the end, float64[runs]."""

    @cached_property
    def rolled_back(self) -> float:
        """Share of the runs."""
        return float(np.isfinite(self.at).mean())

    @cached_property
    def promoted(self) -> float:
        """Share of the runs that were not rolled back and whose bound is below the margin."""
        return float((~np.isfinite(self.at) & (self.bounds < MARGIN)).mean())

    def requests(self, percent: float) -> float:
        """Candidate requests until the rollback at a percentile of all runs."""
        return float(np.percentile(self.at, percent, method="higher"))


@dataclass(frozen=True)
class Published:
    """One row of the study, shares in percent; nan where it says nothing."""

    traffic: Traffic
    rolled_back: float
    promoted: float = np.nan


TABLE: tuple[Published, ...] = (
    Published(Traffic(0.01, 0.01, 500, 5), 1.8, 48.0),
    Published(Traffic(0.02, 0.01, 500, 5), 30.0, 4.6),
    Published(Traffic(0.05, 0.01, 500, 5), 99.6, 0.0),
    Published(Traffic(0.005, 0.01, 2000, 10), 0.06, 99.9),
    Published(Traffic(0.01, 0.01, 2000, 10), 2.4, 95.8),
    Published(Traffic(0.015, 0.01, 2000, 10), 32.4, 44.9),
    Published(Traffic(0.02, 0.01, 2000, 10), 84.2, 4.4),
    Published(Traffic(0.05, 0.01, 2000, 10), 100.0, 0.0),
    Published(Traffic(0.01, 0.01, 5000, 20), 3.1, 97.0),
    Published(Traffic(0.02, 0.01, 5000, 20), 99.8, 0.2),
    Published(Traffic(0.01, 0.01, 10_000, 20), 3.1, 96.9),
    Published(Traffic(0.015, 0.01, 10_000, 20), 92.7, 7.3),
    Published(Traffic(0.02, 0.01, 10_000, 20), 100.0, 0.0),
)


def simulate(traffic: Traffic, *, runs: int, seed: int, needed: float = 1 / ALPHA) -> Found:
    """What the errors' test alone does in so many rollouts."""
    parts = [_ended(traffic, k_c, k_s, needed) for k_c, k_s in counts(traffic, runs=runs, seed=seed)]
    at, served, bounds = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Found(at, served, bounds)


def counts(traffic: Traffic, *, runs: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """Failures of candidate and control at each look, int64[chunk, looks] each, until there were `runs`."""
    rng = np.random.default_rng(seed)
    theta_c, theta_s = traffic.rates()
    for start in range(0, runs, _CHUNK):
        shape = (min(_CHUNK, runs - start), len(theta_c))
        yield rng.binomial(traffic.look, theta_c, shape), rng.binomial(RATIO * traffic.look, theta_s, shape)


def values(k_c: Ints, k_s: Ints, c: int, b: int) -> Floats:
    """The evidence of TwoArm after each look at k_c of c and k_s of b failures, float64[runs, looks]."""
    factors, found = log_factors(k_c, k_s, c, b), np.empty(k_c.shape)
    logs: Floats = np.full((len(k_c), len(WEIGHTS)), np.log(1 - RESERVE))
    kept = RESERVE * RESERVE_LASTS / (RESERVE_LASTS + c * np.arange(k_c.shape[1] + 1.0))
    for i in range(k_c.shape[1]):
        logs = np.logaddexp(logs + factors[:, i], np.log(kept[i] - kept[i + 1]))
        found[:, i] = np.exp(np.minimum(logs, 600)) @ np.array(WEIGHTS) + kept[i + 1]
    return found


def log_factors(k_c: Ints, k_s: Ints, c: int, b: int) -> Floats:
    """Log e-values of single looks, float64[..., 7], from tables of Fisher's distributions."""
    log_m = np.log(MULTIPLIERS)
    return np.asarray(k_c[..., None] * log_m - _normalizers(c, b)[k_c + k_s])


def _normalizers(c: int, b: int) -> Floats:
    """log of the mean of m^K_c, K_c hypergeometric given k failures, float64[c + b + 1, 7]."""
    k, j = np.arange(c + b + 1)[:, None], np.arange(c + 1)
    possible = (j <= k) & (k - j <= b)
    chances = np.where(possible, _log_choose(c, j) + _log_choose(b, np.where(possible, k - j, 0)), -np.inf)
    chances = chances - _log_choose(c + b, k)
    return np.asarray(logsumexp(chances[..., None] + j[:, None] * np.log(MULTIPLIERS), axis=1))


def _log_choose(n: int, k: Ints) -> Floats:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def _ended(traffic: Traffic, k_c: Ints, k_s: Ints, needed: float) -> tuple[Floats, Ints, Floats]:
    alarms = values(k_c, k_s, traffic.look, RATIO * traffic.look) >= needed
    first = np.where(alarms.any(axis=1), alarms.argmax(axis=1), -1)
    at = np.where(first >= 0, (first + 1.0) * traffic.look, np.inf)
    served = np.take_along_axis(k_c.cumsum(axis=1), first[:, None], axis=1)[:, 0]  # -1: until the end
    n = k_c.shape[1] * traffic.look
    totals = zip(k_c.sum(axis=1).tolist(), k_s.sum(axis=1).tolist(), strict=True)
    return at, served, np.array([newcombe_upper(failed, n, control, RATIO * n) for failed, control in totals])
