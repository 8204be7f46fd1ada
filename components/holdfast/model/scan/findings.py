"""What a scan takes and what it finds, for every modality."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Detector, InputSpec
from holdfast.model.scan.crossfit import Mask
from holdfast.model.scan.labels import TOLERATED, ClassLabels, LabelErrors
from holdfast.model.scan.ranking import ranks

LABEL_ERRORS = "label errors"


@dataclass(frozen=True)
class ScanSettings:
    """How a scan computes."""

    spec: InputSpec
    classes: tuple[str, ...]
    folds: int
    epochs: int
    device: str
    seed: int


@dataclass(frozen=True)
class Findings:
    """What a scan found among N rows."""

    detectors: tuple[Detector, ...]
    suspects: Mask
    """bool[N]: rows of detectors that raised the alarm."""
    scores: dict[str, NDArray[np.float64]]
    """float64[N] each, larger is more suspicious; `score` puts the rows of alarms first, then ranks by all of them."""
    labels: LabelErrors
    """What was found out about the labels, class by class."""
    suspected_by: dict[str, Mask]
    """Detector -> bool[N]: the suspects that it named."""


def gather(
    detectors: list[Detector],
    planted: Mask,
    labels: LabelErrors,
    *,
    backdoor: NDArray[np.float64],
    others: dict[str, NDArray[np.float64]],
    classes: Sequence[str] = (),
) -> Findings:
    """Suspects of every detector in alarm, and the ranking that a review follows, whether there is an alarm or not.

    A row ranks as high as its stronger case, wrong label or backdoor, where a wrong label weighs half until that
    detector alarms; planted rows go before all, then wrong labels.
    """
    wrong = np.zeros(len(planted), dtype=bool)
    wrong[labels.suspects] = True
    weight = 1.0 if labels.alarm else 0.5
    case = np.maximum(weight * ranks(labels.unusual), ranks(backdoor))
    suspects = planted | wrong
    score = (case + suspects + planted) / 3
    parts = {"label_error": labels.suspicion, "disbelief": labels.disbelief, "backdoor": backdoor}
    return Findings(
        detectors=(*label_detectors(labels, classes), *detectors),
        suspects=suspects,
        scores={"score": score} | parts | others,
        labels=labels,
        suspected_by={LABEL_ERRORS: wrong} | {detector.name: planted for detector in detectors},
    )


def label_detectors(found: LabelErrors, classes: Sequence[str]) -> list[Detector]:
    """The result of the search for wrong labels: each class in alarm, or the class with most of them."""
    judged = [one for one in found.classes if one.model is not None]
    alarms = [one for one in judged if one.alarm]
    strongest = sorted(judged, key=lambda one: -one.statistic)[:1]
    nothing = Detector(name=LABEL_ERRORS, statistic=0, threshold=TOLERATED, alarm=False, detail="no class is judged")
    return [_label_detector(one, classes) for one in alarms or strongest] or [nothing]


def _label_detector(found: ClassLabels, classes: Sequence[str]) -> Detector:
    name = classes[found.label] if classes else str(found.label)
    return Detector(
        name=LABEL_ERRORS,
        statistic=found.statistic,
        threshold=found.threshold,
        alarm=found.alarm,
        detail=f"class {name}: {found.wrong} of {found.rows} labels contradict models that did not see them",
    )
