"""Label errors: rows whose label models that did not see them contradict, more than the classes' own likeness explains.

The ranking is the self-confidence of confident learning (Northcutt, Jiang, Chuang, JAIR 2021,
https://arxiv.org/abs/1911.00068) in log-odds, less what is ordinary between the two classes: a shirt called a coat is
less suspicious than a shirt called a boot. Every ranking has a top row, so the alarm is a separate test. It looks where
honest rows are not contradicted: at the rows whose class models are surest of. Wrong labels fall there as often as
anywhere else.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.model.scan.crossfit import own
from holdfast.statistics import lower_bound

SUREST = 0.25
"""The share of rows, by out-of-fold certainty, in which the alarm counts contradictions."""
TOLERATED = 0.01
"""Share of wrong labels that raises no alarm."""
ALPHA = 0.05
_SMALLEST = 1e-12
_LIKENESS = 1e-2
"""Below this mean belief two classes are simply different."""


@dataclass(frozen=True)
class LabelErrors:
    """Suspected labels among N rows."""

    suspicion: NDArray[np.float64]
    """float64[N], log-odds against the label: the larger the more suspicious."""
    disbelief: NDArray[np.float64]
    """float64[N] in [0, 1]: 1 minus the out-of-fold probability of the label."""
    suspects: NDArray[np.int64]
    """The rows, as many as labels are wrong at least, the worst first; none without an alarm."""
    share: float
    """Wrong labels: a lower bound, one-sided 95 %."""
    alarm: bool


def find_label_errors(probabilities: NDArray[np.float64], y: NDArray[np.int64]) -> LabelErrors:
    """Judges labels y int64[N] by out-of-fold probabilities float64[N, classes]."""
    suspicion = label_suspicion(probabilities, y)
    share = wrong_share(probabilities, y)
    alarm = share > TOLERATED
    count = int(share * len(y)) if alarm else 0
    worst = np.argsort(-suspicion, kind="stable")[:count]
    return LabelErrors(suspicion, 1 - own(probabilities, y), worst, share, alarm)


def label_suspicion(probabilities: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64[N]: log-odds of the best other class against the label, less what is usual between the two classes.

    With two classes nothing is subtracted, and the order is cleanlab's of self-confidence.
    """
    belief = own(probabilities, y)
    others = probabilities.copy()
    others[np.arange(len(y)), y] = 0
    odds = np.log(np.maximum(others.max(axis=1), _SMALLEST)) - np.log(np.maximum(belief, _SMALLEST))
    return np.asarray(odds - _usual(probabilities)[probabilities.argmax(axis=1), y])


def _usual(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[classes, classes]: log of the mean belief in each class among the rows said to be of another."""
    classes = probabilities.shape[1]
    said = probabilities.argmax(axis=1)
    if classes == 2:
        return np.zeros((2, 2))
    mean = [probabilities[said == k].mean(axis=0) if (said == k).any() else np.zeros(classes) for k in range(classes)]
    return np.log(np.stack(mean) + _LIKENESS)


def wrong_share(probabilities: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """A lower bound (95 %) of the share of wrong labels, if models are as good as they think where they are sure.

    Counted among the surest quarter of the rows, of any label, less the errors that the models themselves
    expect there.
    """
    certainty = probabilities.max(axis=1)
    sure = certainty >= np.quantile(certainty, 1 - SUREST)
    contradicted = int((probabilities[sure].argmax(axis=1) != y[sure]).sum())
    expected = float((1 - certainty[sure]).mean())
    return max(0.0, lower_bound(contradicted, int(sure.sum()), ALPHA) - expected)
