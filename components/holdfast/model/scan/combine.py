"""The whole scan of each modality: several detectors, one list of suspects, one score per row.

Images  spectral outliers are held out together, asked again, and what they share is tried as a trigger
Tables  rows that share two exact values and a label are held out together and asked again
Text    messages that share a suspicious n-gram and a label are held out together and asked again
All     label errors by out-of-fold probabilities
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.modality.protocol import ScanMethod
from holdfast.model.inputs import Arrays
from holdfast.model.learners import learner_of, rows_to_fit
from holdfast.model.scan.findings import Findings, ScanSettings
from holdfast.model.scan.groups import scan_tables, scan_texts
from holdfast.model.scan.held_out import HeldOutErrors, find_held_out_errors
from holdfast.model.scan.images import scan_images
from holdfast.model.scan.labels import MIN_CLASS_ROWS

SCANS: dict[ScanMethod, Callable[[Arrays, ScanSettings], Findings]] = {
    "trigger-transfer": scan_images,
    "shared-values": scan_tables,
    "shared-ngrams": scan_texts,
}

_BLOCK = 100_000

__all__ = [
    "Findings",
    "HeldOutErrors",
    "ScanSettings",
    "check_rows",
    "enough_rows",
    "scan_held_out",
    "scan_rows",
]


def scan_rows(rows: Arrays, plan: ScanSettings) -> Findings:
    """Scans training rows by the detectors of their modality.

    Raises:
        InputError: the rows are not what `check_rows` takes.
    """
    check_rows(rows, len(plan.classes))
    return SCANS[modality_of(plan.spec.modality).scan](rows, plan)


def scan_held_out(rows: Arrays, held_out: Arrays, found: Findings, plan: ScanSettings) -> HeldOutErrors:
    """Looks for wrong labels among held-out rows, by a model of the training rows that are not suspected."""
    learn = learner_of(plan.spec, len(plan.classes), epochs=plan.epochs, device=plan.device)
    trusted = rows_to_fit(rows, np.flatnonzero(~found.suspects), plan.seed)
    return find_held_out_errors(learn(trusted, plan.seed)(held_out.x), held_out.y, found.labels)


def enough_rows(y: NDArray[np.int64], classes: int) -> bool:
    """Whether two classes or more have rows enough for the detectors to say something."""
    return int((np.bincount(y, minlength=classes) >= MIN_CLASS_ROWS).sum()) >= 2


def check_rows(rows: Arrays, classes: int) -> None:
    """Refuses what no detector can judge.

    Raises:
        InputError: there are no rows, x and y differ in length, a value is not finite, a label is not in 0..classes-1,
            or all rows have one label.
    """
    if len(rows.x) != len(rows.y):
        raise InputError(f"scan: expected a label for each of {len(rows.x)} rows, found {len(rows.y)}")
    if not len(rows):
        raise InputError("scan: expected training rows, found none")
    if not all(np.isfinite(rows.x[at : at + _BLOCK]).all() for at in range(0, len(rows), _BLOCK)):
        raise InputError("scan: expected finite numbers, found NaN or infinity")
    if rows.y.min() < 0 or rows.y.max() >= classes:
        raise InputError(f"scan: expected labels from 0 to {classes - 1}, found {rows.y.min()} to {rows.y.max()}")
    if len(np.unique(rows.y)) < 2:
        raise InputError(f"scan: expected rows of two classes or more, found only class {rows.y[0]}")
