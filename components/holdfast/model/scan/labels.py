"""Label errors: rows whose label models that did not see them contradict, more than the classes' own likeness explains.

The ranking is the self-confidence of confident learning (Northcutt, Jiang, Chuang, JAIR 2021,
https://arxiv.org/abs/1911.00068) in log-odds, less what is ordinary between the two classes: a shirt called a coat is
less suspicious than a shirt called a boot. Every ranking has a top row, so the alarm is a separate test, of each class
on its own rows: a class is suspect when its labels go on where a calibrated model of the class ends (contamination.py),
never for being rare or hard. Where models do not recognize the class there is nothing to compare with, and its labels
are not judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from holdfast.model.scan.contamination import LabelModel, binned, fit, log_odds_of
from holdfast.model.scan.crossfit import own
from holdfast.statistics import lower_bound

SUREST = 0.25
"""The share of rows, by out-of-fold certainty, in which contradictions are counted."""
ALPHA = 0.05
FALSE_ALARM_RATE = 0.01
"""How often a class whose labels are right raises the alarm, at most; simulated in benchmarks/scans.py (`_rare`)."""
EVIDENCE = 6.63
"""Twice the log likelihood ratio of wrong labels against none. By its limit, half a chi-square with one degree of
freedom (a parameter on the edge of its range: Self and Liang, JASA 82, 1987), one clean class in 200 exceeds it; the
rest of `FALSE_ALARM_RATE` is for classes whose curve is not quite logistic."""
STRONG_EVIDENCE = 18.0
"""For wrong labels that are few in their class, but many for the class that they were taken from: in a large class the
likelihood sees small misfits of the curve, up to 17 in clean classes of 3,000 to 6,000 rows."""
SURE = 0.8
"""How probable it must be that a row is wrong before it is named."""
TOLERATED = 0.01
"""Share of wrong labels in a class that raises no alarm, since every large set has some; `ALPHA` goes with it."""
TAKEN = 0.1
"""Wrong labels in a large class that are this share of a smaller class are an alarm, however few they are there."""
FEWEST = 3
"""Fewer wrong rows in a class are no pattern."""
MIN_CLASS_ROWS = 20
"""With fewer rows a class is not judged."""
UNLIKE = 0.25
"""At most this share of a class's rows is less like it than half of all other rows are; a half is chance."""
CHANCE = 0.001
UNRECOGNIZED = "models cannot tell its rows from others: most labels are wrong, or the columns do not show the class"
_SMALLEST = 1e-12
_LIKENESS = 1e-2
"""Below this mean belief two classes are simply different."""


@dataclass(frozen=True)
class ClassLabels:
    """What is known about the labels of one class."""

    label: int
    rows: int
    evidence: float
    """Twice the log likelihood ratio of wrong labels against none."""
    wrong: int
    """Rows that carry the label wrongly, as many as can be named."""
    model: LabelModel | None
    """None: not judged."""
    statistic: float = 0.0
    """The share of wrong labels that is held against `threshold`: a lower bound, 0 without evidence."""
    threshold: float = TOLERATED
    """The share that chance and tolerance explain."""
    not_judged: str = ""
    """Why not."""

    @property
    def alarm(self) -> bool:
        """Whether more labels are wrong than the threshold."""
        return self.statistic > self.threshold


@dataclass(frozen=True)
class LabelErrors:
    """Suspected labels among N rows."""

    suspicion: NDArray[np.float64]
    """float64[N], log-odds against the label: the larger the more suspicious."""
    disbelief: NDArray[np.float64]
    """float64[N] in [0, 1]: 1 minus the out-of-fold probability of the label."""
    suspects: NDArray[np.int64]
    """The rows that are wrong in each class in alarm, the worst first."""
    classes: tuple[ClassLabels, ...]
    unusual: NDArray[np.float64]
    """float64[N]: `suspicion` less the median of the row's own class, so that no class ranks first for being rare."""

    @property
    def alarm(self) -> bool:
        """Whether a class is in alarm."""
        return any(found.alarm for found in self.classes)

    @property
    def share(self) -> float:
        """Wrong labels among all rows: a lower bound."""
        return sum(found.wrong for found in self.classes if found.alarm) / len(self.suspicion)


def find_label_errors(probabilities: NDArray[np.float64], y: NDArray[np.int64]) -> LabelErrors:
    """Judges labels y int64[N] by out-of-fold probabilities float64[N, classes], each class by itself."""
    suspicion = label_suspicion(probabilities, y)
    classes = [judge_class(probabilities[:, label], y == label, label) for label in range(probabilities.shape[1])]
    judged = np.flatnonzero(np.isin(y, [found.label for found in classes if found.model is not None]))
    share = wrong_share(probabilities[judged], y[judged]) if len(judged) else 0.0
    if share > TOLERATED:
        sure = judged[np.argsort(-suspicion[judged], kind="stable")[: int(share * len(judged))]]
        classes = [_joined(found, int((y[sure] == found.label).sum()), share) for found in classes]
    return LabelErrors(
        suspicion=suspicion,
        disbelief=1 - own(probabilities, y),
        suspects=worst_of(classes, suspicion, y),
        classes=tuple(classes),
        unusual=_unusual(suspicion, y),
    )


def _unusual(suspicion: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    medians = np.zeros(int(y.max()) + 1)
    for label in np.unique(y):
        medians[label] = np.median(suspicion[y == label])
    return np.asarray(suspicion - medians[y])


def _joined(found: ClassLabels, contradicted: int, share: float) -> ClassLabels:
    """The class with the rows that sure models contradict, which are `share` of all rows, if these are more."""
    if not contradicted or (found.alarm and found.wrong >= contradicted):
        return found
    return replace(found, wrong=contradicted, statistic=share, threshold=TOLERATED)


def worst_of(classes: Sequence[ClassLabels], suspicion: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """The wrong rows of each class in alarm, all of them the most suspicious first."""
    rows = [_worst(suspicion, y == found.label, found.wrong) for found in classes if found.alarm]
    suspects = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    return suspects[np.argsort(-suspicion[suspects], kind="stable")]


def judge_class(
    belief: NDArray[np.float64], labelled: NDArray[np.bool_], label: int, *, slope: float | None = None
) -> ClassLabels:
    """Judges the rows that carry one label, by the belief float64[N] that models have in it.

    Args:
        belief: of every row, whether it carries the label or not.
        labelled: bool[N], which rows carry it.
        label: the class.
        slope: of the class's curve, where other rows have shown it; the class is then known to be recognized.
    """
    count = int(labelled.sum())
    if count < MIN_CLASS_ROWS:
        return ClassLabels(label, count, 0.0, 0, None, not_judged=f"too few rows: {MIN_CLASS_ROWS} are needed")
    odds = log_odds_of(belief)
    if slope is None and not _recognized(odds, labelled):
        return ClassLabels(label, count, 0.0, 0, None, not_judged=UNRECOGNIZED)
    rows = binned(odds, labelled)
    model = fit(rows, slope=slope)
    evidence = 2 * (fit(rows, wrongly_in=0.0, slope=slope).cost - model.cost)
    wrong = int((model.wrong(odds[labelled]) >= SURE).sum())
    return ClassLabels(label, count, evidence, wrong, model, *_statistic(evidence, wrong, count, len(belief) - count))


def _recognized(odds: NDArray[np.float64], labelled: NDArray[np.bool_]) -> bool:
    """Whether models tell a class's rows from the others, better than chance and well enough."""
    from scipy.stats import binom

    own_odds = odds[labelled]
    unlike = int((own_odds < np.median(odds[~labelled])).sum()) if len(own_odds) < len(odds) else len(own_odds)
    return bool(unlike <= UNLIKE * len(own_odds) and binom.cdf(unlike, len(own_odds), 0.5) <= CHANCE)


def _statistic(evidence: float, wrong: int, rows: int, others: int) -> tuple[float, float]:
    """What is held against what: `wrong` may be many for the class, or for the others that they were taken from."""
    at_least = lower_bound(wrong, rows, ALPHA) if evidence > EVIDENCE and wrong >= FEWEST else 0.0
    taken = TAKEN * others / rows
    if at_least <= TOLERATED and evidence > STRONG_EVIDENCE and wrong >= FEWEST and wrong / rows > taken:
        return wrong / rows, taken
    return at_least, TOLERATED


def _worst(suspicion: NDArray[np.float64], labelled: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    rows = np.flatnonzero(labelled)
    return rows[np.argsort(-suspicion[rows], kind="stable")[:count]]


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
