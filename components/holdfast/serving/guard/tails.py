"""How unusual a score is, with a bound that holds for all scores at once.

The true tail of a score is unknown; n calibration scores estimate it. The chance that a new score lies beyond the j-th
most extreme of them is at most Beta(j, n + 1 - j) distributed. `tail_bounds` takes the upper quantile of that at some
ranks j, so that with probability 1 - delta over the calibration rows *every* entry is above the true tail. Then
p-values read from the table are valid however many scores follow. That is what a band of Dvoretzky, Kiefer and
Wolfowitz gives, too, but its width, sqrt(log(1 / delta) / 2n), is the same everywhere: with 7,500 rows the least
p-value is 0.018 there and 0.0012 here. Compare Bates et al., Testing for outliers with conformal p-values (2023),
arXiv:2104.08279.
"""

import numpy as np
from numpy.typing import NDArray

Tails = NDArray[np.float64]
"""float64[n + 1]: entry r bounds the chance of a score that r of n calibration scores reach; falls to 0 nowhere."""
Groups = NDArray[np.int64]
"""int64[classes]: the group that each predicted class is judged in."""
_GROWTH = 1.12


def tail_bounds(n: int, delta: float) -> Tails:
    """The table for n scores; with probability at least 1 - delta no entry is below the true tail."""
    from scipy.special import betaincinv

    ranks = _ranks(n)
    bounds = np.ones(n + 1)
    if ranks:
        j = np.array(ranks)
        upper = betaincinv(j, n + 1.0 - j, 1 - delta / len(ranks))
        place = np.searchsorted(j, np.arange(n) + 1)
        bounds[:-1] = np.append(upper, 1.0)[place]
    return np.maximum.accumulate(bounds)


def groups_of(labels: NDArray[np.int64], classes: int, *, least: int) -> Groups:
    """A group for each class with at least `least` of the calibration rows, and one, the last, for all others."""
    enough = np.bincount(labels, minlength=classes) >= least
    return np.where(enough, np.cumsum(enough) - 1, int(enough.sum()))


def _ranks(n: int) -> list[int]:
    ranks, rank = [], 1.0
    while rank <= n:
        ranks.append(int(rank))
        rank = max(rank + 1, rank * _GROWTH)
    return ranks
