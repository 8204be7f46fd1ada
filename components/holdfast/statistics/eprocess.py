"""Tests that may be read as often as one likes: e-processes on counts of failures.

An e-process starts at 1 and, when nothing is wrong, exceeds 1/alpha at *any* time with probability at most alpha
(Ville). `TwoArm` compares the candidate with a concurrent control, so that an incident which hits both is no
fault of either. `OneArm` compares one rate with a limit known beforehand.

theta_c, theta_s: failure rates of candidate and stable (control). A block: k_c of c candidate answers failed and k_s of
b control answers, k = k_c + k_s. m: the odds of failure at the candidate over those at the control.

**Why TwoArm is valid.** Given k, a block with equal rates has k_c hypergeometric, for every rate, and the factor
P_m(k_c | k) / P_1(k_c | k) has expectation 1 (P_m: Fisher's noncentral hypergeometric distribution with odds ratio m).
The factor grows with k_c, and with theta_c below theta_s small k_c become likelier, so the expectation is at most 1
there. This holds after any past, so the product over blocks is a supermartingale, and so is the average over m with
weights set beforehand: Ville's bound holds under any stopping. It needs only that a block's sizes (c, b) are decided by
time or by the past and not by its own answers, and that its answers are exchangeable when the arms are alike; the
failure rate may wander from block to block, and is never estimated. Only counts enter, so order inside a block is
nothing. An observation is one block, however large: to condition on its k alone loses the least. Compare Turner, Ly and
Gruenwald (2024, arXiv:2106.02693), whose e-variable needs an estimate of theta_s and is this one's limit for rare
failures.

**A candidate that turns bad late.** Stakes shrink while the candidate is good. So a part of the wealth is kept back and
added to the stakes little by little, by a schedule of the candidate's answers alone: what is kept has a factor of 1, so
the sum stays a supermartingale, and the test needs no fresh start when the rollout goes a step further.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

MULTIPLIERS: tuple[float, ...] = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 90.0)
"""Odds ratios of the alternatives."""
WEIGHTS: tuple[float, ...] = tuple(share / 25 for share in (4, 5, 4, 8, 2, 1, 1))
"""Their stakes: most on the small effects that are hard to find; a gross failure pays a small stake back at once."""
RESERVE = 0.3
"""Share of the wealth that is not staked at the start."""
RESERVE_LASTS = 100
"""After so many answers of the candidate half of the reserve is staked, after n times as many n / (n + 1) of it."""
SHARES: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Alternatives of OneArm: so far between the limit and certainty, with equal stakes."""
_LEAST = 1e-18
"""Terms below this share of a sum are not added to it."""
_HIGHEST = 690.0


@dataclass(frozen=True)
class TwoArm:
    """Are the candidate's odds of failure above the control's?"""

    logs: tuple[float, ...] = (math.log(1 - RESERVE),) * len(MULTIPLIERS)
    """Of what each stake has become, for a weight of 1."""
    judged: int = 0
    """Answers of the candidate in closed blocks."""
    failed: int = 0
    """Of the control so far; for the reader, the test does not use it."""
    answered: int = 0
    waiting: tuple[int, int, int, int] = (0, 0, 0, 0)
    """(failed, answered) of candidate and control in a block that still lacks answers of one arm."""

    def add(self, *, candidate: tuple[int, int], control: tuple[int, int]) -> Self:
        """The test after one more observation of (failed, answered) of either arm.

        One without answers of an arm is no evidence by itself; it joins the next.
        """
        failed, answered = self.failed + control[0], self.answered + control[1]
        k_c, c, k_s, b = (a + b for a, b in zip(self.waiting, (*candidate, *control), strict=True))
        if c == 0 or b == 0:
            return type(self)(self.logs, self.judged, failed, answered, (k_c, c, k_s, b))
        more = math.log(reserve(self.judged) * c / (RESERVE_LASTS + self.judged + c))
        factors = log_factors(k_c, c, k_s, b)
        logs = tuple(log_sum(log + factor, more) for log, factor in zip(self.logs, factors, strict=True))
        return type(self)(logs, self.judged + c, failed, answered)

    @property
    def value(self) -> float:
        """Evidence against "not worse than the control"; at most 1e300."""
        return min(mixed(self.logs, WEIGHTS) + reserve(self.judged), 1e300)


@dataclass(frozen=True)
class OneArm:
    """Is a rate above `limit`?"""

    limit: float
    logs: tuple[float, ...] = (0.0,) * len(SHARES)

    def add(self, hits: int, trials: int) -> Self:
        """The test after `trials` more with `hits` of what should be rare."""
        if not 0 < self.limit < 1:
            return self
        rates = (self.limit + (1 - self.limit) * share for share in SHARES)
        more = (_log_ratio(hits, trials, rate, self.limit) for rate in rates)
        return type(self)(self.limit, tuple(x + y for x, y in zip(self.logs, more, strict=True)))

    @property
    def value(self) -> float:
        """Evidence against "at most the limit"; at most 1e300."""
        return mixed(self.logs, (1 / len(SHARES),) * len(SHARES))


def reserve(judged: int) -> float:
    """The wealth that is not yet staked after so many answers of the candidate."""
    return RESERVE * RESERVE_LASTS / (RESERVE_LASTS + judged)


def log_factors(k_c: int, c: int, k_s: int, b: int) -> tuple[float, ...]:
    """Log e-values of one block, one per multiplier: log P_m(k_c | k) - log P_1(k_c | k)."""
    k = k_c + k_s
    if k in {0, c + b}:
        return (0.0,) * len(MULTIPLIERS)
    plain = _log_choose(c + b, k)
    return tuple(k_c * math.log(m) - _log_normalizer(c, b, k, m) + plain for m in MULTIPLIERS)


def log_sum(left: float, right: float) -> float:
    """log(exp(left) + exp(right))."""
    return max(left, right) + math.log1p(math.exp(-abs(left - right)))


def mixed(logs: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted mean of exp(logs); at most 1e300."""
    highest = max(logs)
    total = math.fsum(weight * math.exp(log - highest) for log, weight in zip(logs, weights, strict=True))
    return math.exp(min(highest + math.log(total), _HIGHEST))


def _log_normalizer(c: int, b: int, k: int, m: float) -> float:
    """log of the sum over j of C(c, j) C(b, k - j) m^j, in about sqrt(min(c, k)) steps from the largest term."""
    low, high = max(0, k - b), min(c, k)
    start = min(max(_mode(c, b, k, m), low), high)
    total, term, j = 1.0, 1.0, start
    while j < high and term > _LEAST * total:
        term *= (c - j) * (k - j) * m / ((j + 1) * (b - k + j + 1))
        total, j = total + term, j + 1
    term, j = 1.0, start
    while j > low and term > _LEAST * total:
        term *= j * (b - k + j) / ((c - j + 1) * (k - j + 1) * m)
        total, j = total + term, j - 1
    return _log_choose(c, start) + _log_choose(b, k - start) + start * math.log(m) + math.log(total)


def _mode(c: int, b: int, k: int, m: float) -> int:
    """Near the largest term: the root of (c - x)(k - x) m = x (b - k + x)."""
    linear, constant = m * (c + k) + b - k, m * c * k
    return int(2 * constant / (linear + math.sqrt(max(0.0, linear * linear - 4 * (m - 1) * constant))))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_ratio(k: int, n: int, theta: float, theta_0: float) -> float:
    """Log likelihood ratio of theta against theta_0 for k failures of n."""
    return k * math.log(theta / theta_0) + (n - k) * (math.log1p(-theta) - math.log1p(-theta_0))
