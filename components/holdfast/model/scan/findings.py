"""What a scan takes and what it finds, for every modality."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Detector, InputSpec
from holdfast.model.scan.crossfit import Mask
from holdfast.model.scan.labels import TOLERATED, LabelErrors
from holdfast.model.scan.ranking import ranks


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


def gather(
    detectors: list[Detector],
    planted: Mask,
    labels: LabelErrors,
    *,
    backdoor: NDArray[np.float64],
    others: dict[str, NDArray[np.float64]],
) -> Findings:
    """Suspects of every detector in alarm, and the ranking that a review follows, whether there is an alarm or not.

    A row ranks as high as its stronger case, wrong label or backdoor, where a wrong label weighs half until that
    detector alarms; planted rows go before all, then wrong labels.
    """
    suspects = planted.copy()
    suspects[labels.suspects] = True
    weight = 1.0 if labels.alarm else 0.5
    case = np.maximum(weight * ranks(labels.suspicion), ranks(backdoor))
    score = (case + suspects + planted) / 3
    parts = {"label_error": labels.suspicion, "disbelief": labels.disbelief, "backdoor": backdoor}
    return Findings((label_detector(labels), *detectors), suspects, {"score": score} | parts | others)


def label_detector(found: LabelErrors) -> Detector:
    """The result of the search for wrong labels."""
    return Detector(
        name="label errors",
        statistic=found.share,
        threshold=TOLERATED,
        alarm=found.alarm,
        detail=f"at least {found.share:.1%} of the labels are wrong, by models that did not see them",
    )
