"""What a gambler has who bets that a client is not like others, at odds that are fair if it is.

p: a p-value, P(p <= u) <= u given the past while the client is as others. kappa: a power in (0, 1); the bet
kappa p^(kappa - 1) has expectation at most 1 (Vovk and Wang 2021, arXiv:1912.06116). The wealth is the mean over
`POWERS` of products of bets, and a reserve. It starts at 1, and by Ville's inequality is ever at 1 / alpha or above
with probability at most alpha, whenever one looks.

**A client that turns later.** Stakes shrink while a client is as others. So a reserve is staked little by little, as in
`holdfast.statistics.eprocess`: after t answers the stakes are never below about RESERVE * RESERVE_LASTS / t^2, and a
client that was good for 30,000 queries is found some queries later than a new one, not thousands.
"""

import math

import numpy as np
from numpy.typing import NDArray

POWERS: NDArray[np.float64] = np.arange(1, 20) / 20
"""float64[19]: 0.05, 0.10 .. 0.95; small ones win on tiny p-values, large ones on many that are a little small."""
RESERVE, RESERVE_LASTS = 0.3, 100
"""Share of the wealth that is not staked at the start; after so many queries half of it is."""
Logs = NDArray[np.float64]
"""float64[..., 19]: logs of what was made of each power's stake, for a weight of 1."""
_Real = NDArray[np.float64] | np.float64
_Whole = NDArray[np.int64] | np.int64
_LOG_POWERS = np.log(POWERS)


def start(clients: tuple[int, ...] = ()) -> Logs:
    """The stakes before the first query, of one client or of an array of them."""
    return np.full((*clients, len(POWERS)), math.log(1 - RESERVE))


def bet(logs: Logs, p: _Real, seen: _Whole) -> Logs:
    """The stakes after one more p-value.

    Args:
        logs: The stakes.
        p: Of the query, in (0, 1], float64[...].
        seen: p-values before this one, int64[...].
    """
    more = np.log(reserve(seen) / (RESERVE_LASTS + seen + 1))
    found: Logs = np.logaddexp(logs + (_LOG_POWERS + (POWERS - 1) * np.log(p)[..., None]), more[..., None])
    return found


def log_wealth(logs: Logs, seen: _Whole) -> NDArray[np.float64]:
    """Log of the wealth, float64[...]."""
    highest = logs.max(-1)
    staked = highest + np.log(np.exp(logs - highest[..., None]).mean(-1))
    found: NDArray[np.float64] = np.logaddexp(staked, np.log(reserve(seen)))
    return found


def reserve(seen: _Whole) -> NDArray[np.float64]:
    """The part of the wealth that is not staked after so many p-values, float64[...]."""
    return RESERVE * RESERVE_LASTS / (RESERVE_LASTS + np.asarray(seen, dtype=np.float64))
