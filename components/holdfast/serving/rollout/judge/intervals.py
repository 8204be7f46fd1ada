"""How much worse the candidate's failure rate may still be, given what was counted."""

import math
from statistics import NormalDist


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
    return p_c - p_s + math.hypot(high - p_c, p_s - low)


def wilson(k: int, n: int, z: float) -> tuple[float, float]:
    """The score interval of k of n > 0: the rates that lie at most z standard errors from the share."""
    p, width = k / n, z * z / n
    half = math.sqrt(width * (p * (1 - p) + width / 4))
    return (p + width / 2 - half) / (1 + width), (p + width / 2 + half) / (1 + width)
