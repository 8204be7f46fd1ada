"""Wrong labels among held-out rows, which no model of the scan saw: counted and listed, never removed.

The curve of each class is as steep as among the training rows; its level and the wrong labels are fitted to the
held-out rows (contamination.py). So a delivery whose held-out rows hold another share of a class is not suspect.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.model.scan.contamination import LabelModel
from holdfast.model.scan.labels import ClassLabels, LabelErrors, judge_class, label_suspicion, worst_of


@dataclass(frozen=True)
class HeldOutErrors:
    """Suspected labels among M held-out rows."""

    y: NDArray[np.int64]
    """int64[M]: the labels as delivered."""
    suspicion: NDArray[np.float64]
    """float64[M], log-odds against the label: the larger the more suspicious."""
    suspects: NDArray[np.int64]
    """The rows that are wrong in each class in alarm, the worst first."""
    answers: NDArray[np.int64]
    """int64[M]: the class that the model gives each row."""


def find_held_out_errors(
    probabilities: NDArray[np.float64], y: NDArray[np.int64], training: LabelErrors
) -> HeldOutErrors:
    """Judges held-out labels y int64[M] by probabilities float64[M, classes] of a model that saw the training rows."""
    suspicion = label_suspicion(probabilities, y)
    classes = [_judge(probabilities, y, found.label, found.model) for found in training.classes]
    return HeldOutErrors(y, suspicion, worst_of(classes, suspicion, y), probabilities.argmax(axis=1))


def _judge(
    probabilities: NDArray[np.float64], y: NDArray[np.int64], label: int, trained: LabelModel | None
) -> ClassLabels:
    if trained is None:
        return ClassLabels(label, int((y == label).sum()), 0.0, 0, None)
    return judge_class(probabilities[:, label], y == label, label, slope=trained.slope)
