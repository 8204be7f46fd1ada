"""Reads what a scan set aside, and writes decisions about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column, Decision, Review, ScanReport, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load
from holdfast.errors import ArtifactError, InputError, IntegrityError
from holdfast.modality import modality_of
from holdfast.modality.protocol import Storage
from holdfast.quarantine.decide import joined, row_ids
from holdfast.quarantine.reviews import append_review, newest_review
from holdfast.quarantine.rows import CellValue, image_digests, table_digests, without_fills
from holdfast.quarantine.table import TABLE, TableRow, read_table
from holdfast.steps import by_role, made_from, writer

RowValues = NDArray[np.generic] | dict[str, CellValue]
"""A row as delivered: an image number[C, H, W], or column -> cell."""


@dataclass(frozen=True)
class HeldRow:
    """One row in quarantine, as it was delivered."""

    id: int
    digest: str
    label: str
    scores: dict[str, float]
    """Detector -> its score, larger is more suspicious; `score` is the vote of all."""
    values: RowValues
    place: str = ""
    """Where it is in the delivered file, as far as the snapshot knows."""
    detectors: str = ""
    """What suspects it, by name."""


@dataclass(frozen=True)
class Quarantine:
    """What one scan set aside."""

    scan: Artifact[ScanReport]
    snapshot: Artifact[Snapshot]
    rows: tuple[HeldRow, ...]
    """Most suspicious first."""

    def row(self, row_id: int) -> HeldRow:
        """The row of this id.

        Raises:
            InputError: it is not in quarantine.
        """
        for row in self.rows:
            if row.id == row_id:
                return row
        raise InputError(f"{self.scan.folder}: expected a row in quarantine, found no row {row_id} among its rows")


def read_quarantine(scan: Path, snapshot: Path | None) -> Quarantine:
    """The rows that `scan` set aside; its snapshot is the folder next to it unless another is named.

    Raises:
        ArtifactError: no scan, or no snapshot that it was made of.
        IntegrityError: files with other bytes.
    """
    report = load(scan, ScanReport)
    data = _its_snapshot(report, snapshot)
    values, labels = _READERS[modality_of(data.document.modality).storage](report, data)
    digests = _digests(values, labels, data.document.columns)
    with np.load(report.open("scores.npz"), allow_pickle=False) as scores:
        all_scores = {name: scores[name] for name in scores.files}
    lines = {line.row: line for line in _table(report)}
    rows = [
        HeldRow(
            id=row,
            digest=digest,
            label=label,
            scores={name: float(column[row]) for name, column in all_scores.items()},
            values=value,
            place=lines[row].place if row in lines else "",
            detectors=lines[row].detectors if row in lines else "",
        )
        for row, digest, label, value in zip(report.document.quarantined, digests, labels, values, strict=True)
    ]
    return Quarantine(report, data, tuple(sorted(rows, key=lambda row: (-row.scores["score"], row.id))))


def _table(report: Artifact[ScanReport]) -> list[TableRow]:
    """The lines of the quarantine's table; none in a scan of before there was one."""
    return read_table(report.open(TABLE).read()) if TABLE in report.document.files else []


@dataclass(frozen=True)
class Verdicts:
    """A reviewer's word about some rows."""

    decision: Literal["release", "drop"]
    rows: str | None
    """Row ids such as `1,5-9`; None means every row of the quarantine."""
    by: str
    why: str


def decide(quarantine: Quarantine, verdicts: Verdicts, reviews: Path) -> tuple[Artifact[Review], list[int]]:
    """Writes the next version of the review into `reviews`, and gives it with the row ids that were decided.

    Raises:
        InputError: a row that is not in quarantine, or that was decided differently before.
    """
    held = {row.id: row for row in quarantine.rows}
    ids = sorted(held) if verdicts.rows is None else row_ids(verdicts.rows, sorted(held))
    if not ids:
        raise InputError(f"{quarantine.scan.folder}: expected rows in quarantine, found none")
    if not verdicts.by.strip() or not verdicts.why.strip():
        raise InputError("cannot decide without a name (--by) and a reason (--why)")
    new = {
        row: Decision(row=held[row].digest, decision=verdicts.decision, by=verdicts.by, why=verdicts.why) for row in ids
    }
    return append_review(reviews, lambda before: _review(quarantine, before, new)), ids


def hold(quarantine: Quarantine, reviews: Path) -> Artifact[Review] | None:
    """Records every row of the quarantine without a decision as undecided, so that it stays out of later deliveries.

    Gives the newest version of the review in `reviews`; None when there is none and nothing to record.
    """
    if not quarantine.rows:
        return newest_review(reviews)
    return append_review(reviews, lambda before: _review(quarantine, before, {}))


def _review(quarantine: Quarantine, before: Artifact[Review] | None, new: Mapping[int, Decision]) -> Review:
    inputs = by_role(quarantine.scan, quarantine.snapshot)
    entries = joined(before.document.entries if before else (), new)
    waiting = {*(before.document.undecided if before else ()), *(row.digest for row in quarantine.rows)}
    return Review(
        name=quarantine.snapshot.document.name,
        entries=entries,
        undecided=tuple(sorted(waiting - {entry.row for entry in entries})),
        inputs=inputs | ({"review": before.digest} if before else {}),
    )


def _its_snapshot(report: Artifact[ScanReport], given: Path | None) -> Artifact[Snapshot]:
    neighbour = report.folder.resolve().parent / writer(Snapshot).name
    wanted = made_from(report.document, Snapshot)
    if given is None and not neighbour.is_dir():
        raise ArtifactError(f"{neighbour}: expected the scan's snapshot, found none; name it with --snapshot")
    return load(Ref(given or neighbour, wanted), Snapshot)


def _images(report: Artifact[ScanReport], data: Artifact[Snapshot]) -> tuple[list[RowValues], list[str]]:
    with np.load(report.open("quarantine.npz"), allow_pickle=False) as held:
        x, y, row = held["x"], held["y"], held["row"]
    _same_rows(report, row)
    return list(x), [data.document.classes[index] for index in y]


def _cells(report: Artifact[ScanReport], data: Artifact[Snapshot]) -> tuple[list[RowValues], list[str]]:
    import pandas as pd

    frame = pd.read_parquet(report.open("quarantine.parquet"))
    _same_rows(report, frame.iloc[:, 0].to_numpy())
    columns: dict[str, list[Any]] = {
        column.name: frame[column.name].to_numpy(np.float64).tolist()
        if column.kind == "number"
        else frame[column.name].astype(str).tolist()
        for column in data.document.columns
    }
    rows: list[RowValues] = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return rows, frame[data.document.label].astype(str).tolist()


_READERS: dict[Storage, Callable[[Artifact[ScanReport], Artifact[Snapshot]], tuple[list[RowValues], list[str]]]] = {
    "npz": _images,
    "parquet": _cells,
}


def _same_rows(report: Artifact[ScanReport], found: NDArray[np.generic]) -> None:
    if found.tolist() != list(report.document.quarantined):
        raise IntegrityError(
            f"{report.folder}: expected the rows that the report names, found others in its quarantine"
        )


def _digests(values: Sequence[RowValues], labels: list[str], columns: Sequence[Column]) -> list[str]:
    tables = [row for row in values if isinstance(row, dict)]
    images = [row for row in values if not isinstance(row, dict)]
    if tables:
        cells = {name: [row[name] for row in tables] for name in tables[0]}
        return table_digests(without_fills(cells, columns), labels)
    return image_digests(np.stack(images), labels) if images else []
