"""Models that carriers are held against: the scan's learners; rare classes are answered as readily as common ones."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import InputSpec
from holdfast.modality import modality_of
from holdfast.modality.protocol import ScanMethod
from holdfast.model.backdoor.carriers import Positions, Reference
from holdfast.model.inputs import Arrays
from holdfast.model.learners import Learner, image_learner, table_learner, text_learner

EPOCHS = 12
"""Of a reference network for images."""


def reference_model(spec: InputSpec, classes: int, device: str) -> Reference:
    """The learner of the modality."""
    return _REFERENCES[modality_of(spec.modality).scan](spec, classes, device)


def _images(spec: InputSpec, classes: int, device: str) -> Reference:
    return _balanced(image_learner(spec, classes, epochs=EPOCHS, device=device), classes)


def _tables(spec: InputSpec, classes: int, device: str) -> Reference:
    return _balanced(table_learner(classes), classes)


def _messages(spec: InputSpec, classes: int, device: str) -> Reference:
    """Its classes are weighed when it is fitted."""
    learn = text_learner(classes)

    def reference(rows: Arrays, seed: int) -> Callable[[NDArray[np.generic]], Positions]:
        predict = learn(rows, seed)
        return lambda x: np.asarray(predict(x).argmax(axis=1))

    return reference


def _balanced(learn: Learner, classes: int) -> Reference:
    """Answers the class whose probability is largest compared with its share of the rows."""

    def reference(rows: Arrays, seed: int) -> Callable[[NDArray[np.generic]], Positions]:
        predict, share = learn(rows, seed), np.maximum(np.bincount(rows.y, minlength=classes), 1) / len(rows)
        return lambda x: np.asarray((predict(x) / share).argmax(axis=1))

    return reference


_REFERENCES: dict[ScanMethod, Callable[[InputSpec, int, str], Reference]] = {
    "trigger-transfer": _images,
    "shared-values": _tables,
    "shared-ngrams": _messages,
}
