"""Stage two: is the champion less sure on the new rows than it was on its own held-out rows?

One-sided, because a model that is surer needs no protection: the Kolmogorov-Smirnov test that the new confidence is
stochastically smaller (Rabanser, Günnemann and Lipton, Failing Loudly, NeurIPS 2019, find shifts of the model's output
a good second stage), and a drop of the mean that matters.
"""

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import ConfidenceDrift

MIN_DROP = 0.05
"""Smallest drop of the mean confidence that matters."""
TEST = "one-sided Kolmogorov-Smirnov p, and a drop of the mean above 0.05"


def compare(reference: NDArray[np.float64], current: NDArray[np.float64], *, alpha: float) -> ConfidenceDrift:
    """Compares confidences float64[n] in [0, 1]; drifted when they fell significantly and by more than `MIN_DROP`."""
    p = p_lower(reference, current)
    before, now = float(reference.mean()), float(current.mean())
    return ConfidenceDrift(
        test=TEST,
        statistic=p,
        threshold=alpha,
        reference_mean=before,
        current_mean=now,
        drifted=p < alpha and before - now > MIN_DROP,
    )


def p_lower(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """The p-value against "current is not stochastically smaller" (Smirnov 1944): exp(-2 D+^2 nm / (n + m))."""
    points = np.concatenate([reference, current])
    above = [np.searchsorted(np.sort(side), points, side="right") / len(side) for side in (reference, current)]
    distance = max(float((above[1] - above[0]).max()), 0.0)
    n, m = len(reference), len(current)
    return float(np.exp(-2 * distance**2 * n * m / (n + m)))
