"""What a scan found, in the words of its report and in the lines of its tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Count, HeldOutLabels, NotJudged, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.model.scan.aside import SetAside
from holdfast.model.scan.held_out import HeldOutErrors
from holdfast.model.scan.labels import FALSE_ALARM_RATE, MIN_CLASS_ROWS
from holdfast.quarantine.places import read_places
from holdfast.quarantine.table import SEPARATOR, TableRow

if TYPE_CHECKING:
    from holdfast.model.scan.findings import Findings

BEFORE = "set aside before"
"""Why an undecided row is in the table, besides what suspects it now."""


def too_few(y: NDArray[np.int64], classes: Sequence[str]) -> tuple[NotJudged, ...]:
    """The classes with too few training rows y int64[N] for any detector."""
    counts = np.bincount(y, minlength=len(classes)).tolist()
    reason = f"too few rows: {MIN_CLASS_ROWS} are needed"
    return tuple(
        NotJudged(name=name, rows=count, reason=reason)
        for name, count in zip(classes, counts, strict=True)
        if count < MIN_CLASS_ROWS
    )


def not_judged(found: "Findings", classes: Sequence[str]) -> tuple[NotJudged, ...]:
    """The classes in which no wrong labels were looked for, and why."""
    return tuple(
        NotJudged(name=classes[one.label], rows=one.rows, reason=one.not_judged)
        for one in found.labels.classes
        if one.model is None
    )


def held_out_labels(found: HeldOutErrors, delivery: Snapshot) -> HeldOutLabels:
    """The suspected held-out labels, counted."""
    per_class = np.bincount(found.y[found.suspects], minlength=len(delivery.classes))
    return HeldOutLabels(
        suspects=Count(k=len(found.suspects), n=len(found.y)),
        per_class=tuple(per_class.tolist()),
        rows=tuple(found.suspects.tolist()),
        false_alarm_rate=FALSE_ALARM_RATE,
    )


def quarantine_rows(
    aside: SetAside,
    y: NDArray[np.int64],
    score: NDArray[np.float64],
    found: "Findings | None",
    data: Artifact[Snapshot],
) -> list[TableRow]:
    """A line for each row that was set aside, the most suspect first."""
    worst_first = sorted(aside.quarantined, key=lambda row: (-score[row], row))
    waiting = set(aside.undecided)
    by = found.suspected_by if found else {}
    place = read_places(data, "train")
    return [
        TableRow(
            row=row,
            place=place(row),
            label=data.document.classes[y[row]],
            score=float(score[row]),
            detectors=SEPARATOR.join([name for name, named in by.items() if named[row]] + [BEFORE] * (row in waiting)),
        )
        for row in worst_first
    ]


def held_out_rows(found: HeldOutErrors, data: Artifact[Snapshot]) -> list[TableRow]:
    """A line for each held-out row with a suspected label, the most suspect first."""
    place, classes = read_places(data, "test"), data.document.classes
    return [
        TableRow(
            row=row,
            place=place(row),
            label=classes[found.y[row]],
            score=float(found.suspicion[row]),
            detectors=f"looks like {classes[found.answers[row]]}",
        )
        for row in found.suspects.tolist()
    ]
