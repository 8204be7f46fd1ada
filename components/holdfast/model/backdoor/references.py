"""Models that carriers are held against: the scan's learners; rare classes are answered as readily as common ones."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import InputSpec
from holdfast.modality import modality_of
from holdfast.modality.protocol import ScanMethod
from holdfast.model.backdoor.carriers import Positions, Reference
from holdfast.model.inputs import Arrays
from holdfast.model.learners import learner_of

EPOCHS = 12
"""Of a reference network for images."""
_WEIGHED: frozenset[ScanMethod] = frozenset({"shared-ngrams"})
"""Where the learner itself weighs the classes when it is fitted."""


def reference_model(spec: InputSpec, classes: int, device: str) -> Reference:
    """Answers the class whose probability is largest compared with its share of the rows."""
    learn = learner_of(spec, classes, epochs=EPOCHS, device=device)
    weighed = modality_of(spec.modality).scan in _WEIGHED

    def reference(rows: Arrays, seed: int) -> Callable[[NDArray[np.generic]], Positions]:
        predict = learn(rows, seed)
        counts = np.maximum(np.bincount(rows.y, minlength=classes), 1)
        share = np.ones(classes) if weighed else counts / len(rows)
        return lambda x: np.asarray((predict(x) / share).argmax(axis=1))

    return reference
