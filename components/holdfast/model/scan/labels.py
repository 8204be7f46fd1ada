"""Label errors: rows whose label models that did not see them contradict with confidence.

Ranked by cleanlab's label quality (Northcutt, Jiang, Chuang, "Confident learning", JAIR 2021,
https://arxiv.org/abs/1911.00068). The ranking alone always names somebody, so a row is a suspect only when the
contradiction is confident, and the alarm asks for more of them than honest data holds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.model.scan.crossfit import own

UNBELIEVED = 0.05
CONFIDENT = 0.9
ALARM_SHARE = 0.02
"""Measured on clean rows: digits 0.4-0.8 %, breast cancer 0.4-0.7 %, SMS 0.2 %, Fashion-MNIST 1.2 %; with 5 % wrong
labels 3 % and more."""


@dataclass(frozen=True)
class LabelErrors:
    """Suspected labels: `quality` and `disbelief` float64[N] in [0, 1]; `suspects` row ids, worst first."""

    quality: NDArray[np.float64]
    """cleanlab's: low is suspicious."""
    disbelief: NDArray[np.float64]
    """1 minus the out-of-fold probability of the label."""
    suspects: NDArray[np.int64]
    share: float
    alarm: bool


def find_label_errors(probabilities: NDArray[np.float64], y: NDArray[np.int64]) -> LabelErrors:
    """Judges labels y int64[N] by out-of-fold probabilities float64[N, classes]."""
    quality = label_quality(probabilities, y)
    belief = own(probabilities, y)
    contradicted = (belief < UNBELIEVED) & (probabilities.max(axis=1) > CONFIDENT)
    found = np.flatnonzero(contradicted)
    suspects = found[np.argsort(quality[found], kind="stable")]
    share = len(suspects) / max(1, len(y))
    return LabelErrors(quality, 1 - belief, suspects, share, share > ALARM_SHARE)


def label_quality(probabilities: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """cleanlab's normalized margin, float64[N] in [0, 1]: 1/2 is a tie between the label and the best other class."""
    from cleanlab.rank import get_label_quality_scores

    return np.asarray(get_label_quality_scores(y, probabilities, method="normalized_margin"), dtype=np.float64)
