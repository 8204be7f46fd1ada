"""Confidence bounds of a rate, of a paired and of an unpaired difference of rates: the one place for all of them.

k successes of n trials with true rate p; alpha is the chance, on one side, that a bound is on the wrong side of p.
Imports the standard library alone; scipy comes in with the first bound that needs it, so that a small process stays so.

Sources: Clopper and Pearson, Biometrika 26 (1934), https://doi.org/10.1093/biomet/26.4.404;
Tango, Statistics in Medicine 17 (1998), https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B;
Newcombe, Statistics in Medicine 17 (1998), https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from statistics import NormalDist

_HALVINGS = 60
"""Bisection steps: the width of [-1, 1] falls below 2e-18, less than one unit of the last place of a float."""

_ROUNDING = 1e-12
"""Sums of the same recalls in another order differ by less."""
PERMUTATIONS = 1999
"""Draws of a permutation test: its p-values are multiples of 1 / 2000."""


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


def clopper_pearson(successes: int, trials: int, alpha: float) -> Interval:
    """Both one-sided Clopper-Pearson bounds; [0, 1] without trials."""
    return Interval(lower_bound(successes, trials, alpha), upper_bound(successes, trials, alpha))


def paired_difference(b: int, c: int, n: int, alpha: float) -> Interval:
    """Tango's score bounds of (first rate - second rate) on the same n examples; [-1, 1] without examples.

    Args:
        b: examples with the first success only.
        c: examples with the second success only.
        n: all examples.
        alpha: of each bound.
    """
    from scipy.special import ndtri

    if n == 0:
        return Interval(-1.0, 1.0)
    z = float(ndtri(1 - alpha))
    lower = _crossing(lambda delta: _score(b, c, n, delta) <= z)
    upper = -_crossing(lambda delta: _score(c, b, n, delta) <= z)
    return Interval(lower, upper)


def mean_of_rates(rates: Sequence[tuple[int, int]], alpha: float) -> Interval:
    """Bounds of the mean of independent rates, each k of n > 0: balanced accuracy, when the rates are recalls.

    The square-and-add rule (method of variance estimates recovery) on Clopper-Pearson bounds: Zou and Donner,
    Statistics in Medicine 27 (2008), https://doi.org/10.1002/sim.3095. [0, 1] without rates.
    """
    if not rates:
        return Interval(0.0, 1.0)
    found = sum_of_rates(rates, [1 / len(rates)] * len(rates), alpha)
    return Interval(max(found.lower, 0.0), min(found.upper, 1.0))


def sum_of_rates(rates: Sequence[tuple[int, int]], weights: Sequence[float], alpha: float) -> Interval:
    """Bounds of the sum of weight >= 0 times rate, of independent rates, each k of n: as `mean_of_rates`.

    A rate without trials lies anywhere in [0, 1].
    """
    shares = [k / n if n else 0.5 for k, n in rates]
    bounds = [clopper_pearson(k, n, alpha) for k, n in rates]
    down = sqrt(sum((w * (p - b.lower)) ** 2 for w, p, b in zip(weights, shares, bounds, strict=True)))
    up = sqrt(sum((w * (b.upper - p)) ** 2 for w, p, b in zip(weights, shares, bounds, strict=True)))
    total = sum(w * p for w, p in zip(weights, shares, strict=True))
    return Interval(total - down, total + up)


def chance_of_balanced_accuracy(hits: Sequence[int], rows: Sequence[int], answers: Sequence[int]) -> float:
    """How often answers that know nothing of the classes reach this balanced accuracy or more: an exact p-value.

    The permutation test of independence: rows and answers of each class stay as they are, which answer goes to which
    row is drawn. With two classes that is Fisher's exact test; with more, `PERMUTATIONS` draws with a fixed seed and
    the observed one counted among them, which keeps the level exactly (Phipson and Smyth 2010,
    https://doi.org/10.2202/1544-6115.1585). Answers that are all the same get 1.

    Args:
        hits: rows of each class that were answered with it.
        rows: rows of each class; classes without rows are left out of the mean.
        answers: rows that were answered with each class; as many as `rows` in all.
    """
    total = sum(rows)
    if total != sum(answers) or any(k > min(n, m) for k, n, m in zip(hits, rows, answers, strict=True)):
        raise ValueError(f"expected {total} answers and no more hits than rows, found {answers} and {hits}")
    if len(rows) == 2:
        # With both margins fixed the second class's hits follow from the first's, and more of one is more of both.
        return chance_of_larger_share(hits[0], rows[0], answers[0] - hits[0], rows[1]) if min(rows) else 1.0
    return _drawn(hits, rows, answers)


def chance_of_larger_share(k: int, n: int, other_k: int, other_n: int) -> float:
    """How often k of n is so much more than other_k of other_n when both are drawn alike: Fisher's exact test.

    One-sided, given all four margins; 1 where one of the two has no trials.
    """
    from scipy.stats import hypergeom

    return float(hypergeom.sf(k - 1, n + other_n, k + other_k, n))


def _drawn(hits: Sequence[int], rows: Sequence[int], answers: Sequence[int]) -> float:
    import numpy as np

    weights = np.array([1 / n if n else 0.0 for n in rows])
    labels, given = (np.repeat(np.arange(len(rows)), counts) for counts in (rows, answers))
    generator, reached = np.random.default_rng(0), float(np.dot(hits, weights))
    as_good = 0
    for _ in range(PERMUTATIONS):
        kept = given[generator.permutation(labels) == given]
        as_good += bool(np.bincount(kept, minlength=len(rows)) @ weights >= reached - _ROUNDING)
    return (1 + as_good) / (1 + PERMUTATIONS)


def newcombe_upper(k_c: int, n_c: int, k_s: int, n_s: int, confidence: float = 0.95) -> float:
    """At most this lies theta_c - theta_s above 0, with about `confidence` (one-sided); 1 when an arm gave no answer.

    Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
    (1998), method 10: hybrid of two score intervals. The two-sided interval of 95 % has its upper end at 0.975.

    Args:
        k_c: failures of the candidate, of `n_c` answers.
        n_c: answers of the candidate.
        k_s: failures of the control, of `n_s` answers.
        n_s: answers of the control.
        confidence: one-sided, above 0.5.
    """
    if n_c == 0 or n_s == 0:
        return 1.0
    z = NormalDist().inv_cdf(confidence)
    p_c, p_s = k_c / n_c, k_s / n_s
    _, high = wilson(k_c, n_c, z)
    low, _ = wilson(k_s, n_s, z)
    return p_c - p_s + hypot(high - p_c, p_s - low)


def wilson(k: int, n: int, z: float) -> tuple[float, float]:
    """The score interval of k of n > 0: the rates that lie at most z standard errors from the share."""
    p, width = k / n, z * z / n
    half = sqrt(width * (p * (1 - p) + width / 4))
    return (p + width / 2 - half) / (1 + width), (p + width / 2 + half) / (1 + width)


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
