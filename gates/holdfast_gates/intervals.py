"""Confidence bounds for counts and for paired counts.

k successes of n trials with true rate p; alpha is the chance, on one side, that a bound is on the wrong side of p.
Sources: Clopper and Pearson, Biometrika 26 (1934), https://doi.org/10.1093/biomet/26.4.404;
Tango, Statistics in Medicine 17 (1998), https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from holdfast.artifacts.documents import Count, Paired

_HALVINGS = 60
"""Bisection steps: the width of [-1, 1] falls below 2e-18, less than one unit of the last place of a float."""


@dataclass(frozen=True)
class Interval:
    """Two one-sided bounds, each wrong with probability at most alpha."""

    lower: float
    upper: float


def lower_bound(successes: int, trials: int, alpha: float) -> float:
    """One-sided Clopper-Pearson: at most the true rate with probability at least 1 - alpha; 0 without trials."""
    from scipy.special import betaincinv

    if successes == 0:
        return 0.0
    return float(betaincinv(successes, trials - successes + 1, alpha))


def upper_bound(successes: int, trials: int, alpha: float) -> float:
    """One-sided Clopper-Pearson: at least the true rate with probability at least 1 - alpha; 1 without trials."""
    return 1.0 - lower_bound(trials - successes, trials, alpha)


def rate(count: Count, alpha: float) -> Interval:
    """Clopper-Pearson bounds of the rate behind `count`."""
    return Interval(lower_bound(count.k, count.n, alpha), upper_bound(count.k, count.n, alpha))


def paired_difference(pairs: Paired, alpha: float) -> Interval:
    """Tango's score bounds of (candidate's rate - champion's rate) on the same examples; [-1, 1] without examples."""
    from scipy.special import ndtri

    n = pairs.both + pairs.only_candidate + pairs.only_champion + pairs.neither
    if n == 0:
        return Interval(-1.0, 1.0)
    b, c, z = pairs.only_candidate, pairs.only_champion, float(ndtri(1 - alpha))
    lower = _crossing(lambda delta: _score(b, c, n, delta) <= z)
    upper = -_crossing(lambda delta: _score(c, b, n, delta) <= z)
    return Interval(lower, upper)


def _score(b: int, c: int, n: int, delta: float) -> float:
    """Tango's statistic for H0: p_b - p_c = delta, with the rates estimated under H0; falls as delta grows."""
    A = 2 * n
    B = -b - c + (2 * n - b + c) * delta
    C = -c * delta * (1 - delta)
    q = (sqrt(max(B * B - 4 * A * C, 0.0)) - B) / (2 * A)
    variance = n * (2 * q + delta * (1 - delta))
    # No variance inside (-1, 1) means delta = 0 and no discordant pair: the estimate is exactly delta.
    return (b - c - n * delta) / sqrt(variance) if variance > 0 else 0.0


def _crossing(holds: Callable[[float], bool]) -> float:
    """The smallest delta in (-1, 1) at which `holds`, which stays true once it is."""
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low
