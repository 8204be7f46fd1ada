"""The section on what the scan set aside, and on held-out rows whose label looks wrong."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import ScanReport, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.errors import ArtifactError
from holdfast.quarantine.table import HELD_OUT_TABLE, TABLE, read_table
from holdfast.rendering.blocks import (
    Block,
    BlockCell,
    Facts,
    Figure,
    Figures,
    Gallery,
    PageLocation,
    PageSection,
    Picture,
    Prose,
    TableBlock,
    cut,
    pairs,
)
from holdfast.rendering.charts import Bar, bar_chart
from holdfast.rendering.numbers import clip, number
from holdfast_pipelines.folder import place_of
from holdfast_pipelines.report.evidence import LoadedRun, read_arrays, read_rows
from holdfast_pipelines.report.pictures import example_uri

MOST_PICTURES = 24
MOST_BARS = 12
MOST_ROWS = 12
MOST_FOLDED = 200
MOST_COLUMNS = 8
_CELL_CHARACTERS = 160


def quarantine(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """What the scan set aside."""
    artifact = run.artifact(ScanReport)
    if artifact is None:
        return None
    report = artifact.document
    snapshot = run.document(Snapshot)
    alarms = TableBlock(
        ("detector", "statistic", "threshold", "alarm", "detail"),
        tuple((d.name, d.statistic, d.threshold, d.alarm, d.detail) for d in report.detectors),
        numeric=(1, 2),
    )
    blocks: list[Block] = [_facts(report), alarms, *_not_judged(report), *_decide(report)]
    if snapshot:
        blocks += _per_class(report, snapshot) + _table(artifact) + _examples(artifact, snapshot)
    return PageSection("quarantine", "Quarantine", (*blocks, *_held_out(artifact)), report.verdict.value)


def _facts(report: ScanReport) -> Facts:
    held_out = {} if report.held_out is None else {"suspected_held_out_labels": report.held_out.suspects}
    return Facts(
        pairs(
            suspects=report.suspects,
            quarantined=len(report.quarantined),
            **({"of_them_undecided_since_an_earlier_run": len(report.undecided)} if report.undecided else {}),
            **({"suspected_but_released_by_a_reviewer": len(report.released)} if report.released else {}),
            review_budget=report.budget,
            taken_out_of_training="yes" if report.applied else _only_undecided(report),
            **held_out,
        )
    )


def _only_undecided(report: ScanReport) -> str:
    return f"only the {len(report.undecided)} undecided rows" if report.undecided else "no, report only"


def _not_judged(report: ScanReport) -> list[Block]:
    """Classes whose labels the scan cannot judge."""
    rows = [(one.name, one.rows, one.reason) for one in report.not_judged]
    return [cut(rows, MOST_ROWS, ("class whose labels are not judged", "rows", "why"), numeric=(1,))] if rows else []


def _decide(report: ScanReport) -> list[Block]:
    """What keeps a row out, and how it comes back."""
    if not report.quarantined:
        return []
    return [
        Prose(
            "Rows in quarantine stay out of every later run, in any delivery, until a reviewer releases them; dropped "
            "ones stay out for good. To look at them and decide: holdfast quarantine list --scan "
            f"{place_of(Path('RUN'), ScanReport)} (RUN is the folder of this run)."
        )
    ]


def _table(artifact: Artifact[ScanReport]) -> list[Block]:
    """The rows in quarantine, the most suspect first."""
    return _lines(artifact, TABLE, "suspected by")


def _held_out(artifact: Artifact[ScanReport]) -> list[Block]:
    """Held-out rows whose label looks wrong."""
    found = artifact.document.held_out
    if found is None or not found.suspects.k:
        return []
    told = (
        f"The labels of {found.suspects.k} of {found.suspects.n} held-out rows look wrong. They are reported only: "
        "check them before the numbers below are believed. A class without a wrong label has rows here in at most "
        f"{found.false_alarm_rate:.0%} of deliveries."
    )
    return [Prose(told), *_lines(artifact, HELD_OUT_TABLE, "what its values look like")]


def _lines(artifact: Artifact[ScanReport], name: str, reason: str) -> list[Block]:
    if name not in artifact.document.files:
        return []
    found = read_table(artifact.open(name).getvalue())
    rows = [(line.row, _plain(line.place), _plain(line.label), line.score, line.detectors) for line in found]
    head = ("row", "in the delivered file", "label", "suspicion", reason)
    return [replace(cut(rows, MOST_FOLDED, head, numeric=(0, 3)), fold=f"{len(rows)} rows, the most suspect first")]


def _per_class(report: ScanReport, snapshot: Snapshot) -> list[Block]:
    if not report.quarantined:
        return [Prose("No row was set aside.")]
    bars = [
        Bar(name, count, f"{name}: {count} rows in quarantine")
        for name, count in zip(snapshot.classes, report.per_class, strict=False)
        if count
    ]
    bars = sorted(bars, key=lambda bar: -bar.value)[:MOST_BARS]
    svg = bar_chart("Quarantined rows by delivered class", f"{len(report.quarantined)} rows", bars)
    return [Figures((Figure("Quarantined rows by delivered class", svg),))]


def _examples(artifact: Artifact[ScanReport], snapshot: Snapshot) -> list[Block]:
    if "quarantine.npz" in artifact.document.files:
        return _pictures(artifact, snapshot)
    head, rows = read_rows(artifact, "quarantine.parquet")
    if not rows:
        return []
    scores = _scores(artifact)
    rows.sort(key=lambda row: -scores.get(row[0], 0.0))
    shown = [tuple(_plain(value) for value in row[:MOST_COLUMNS]) for row in rows]
    return [cut(shown, MOST_ROWS, head[:MOST_COLUMNS])]


def _pictures(artifact: Artifact[ScanReport], snapshot: Snapshot) -> list[Block]:
    held = read_arrays(artifact, "quarantine.npz")
    if not {"x", "y", "row"} <= held.keys():
        raise ArtifactError(f"{artifact.folder / 'quarantine.npz'}: expected arrays x, y, row, found {sorted(held)}")
    scores = _scores(artifact)
    order = sorted(range(len(held["row"])), key=lambda i: -scores.get(int(held["row"][i]), 0.0))
    items = tuple(_picture(held, i, snapshot, scores) for i in order[:MOST_PICTURES])
    title = f"Examples in quarantine ({len(items)} of {len(order)}, most suspect first)"
    return (
        [Gallery(title, items, "Under each: the class it was delivered as, the scan's score, its row.")]
        if items
        else []
    )


def _picture(held: Mapping[str, NDArray[Any]], index: int, snapshot: Snapshot, scores: Mapping[int, float]) -> Picture:
    row, label = int(held["row"][index]), int(held["y"][index])
    name = snapshot.classes[label] if 0 <= label < len(snapshot.classes) else str(label)
    score = f"{number(scores[row])} · " if row in scores else ""
    uri = example_uri(held["x"][index], snapshot.lower, snapshot.upper)
    return Picture(uri, f"delivered as {name}", f"{score}row {row}")


def _scores(artifact: Artifact[ScanReport]) -> dict[int, float]:
    """Row id -> suspicion, from `scores.npz` with `score` (and `row`, when not every row was scanned)."""
    arrays = read_arrays(artifact, "scores.npz")
    score = arrays.get("score", np.zeros(0))
    rows = arrays.get("row", np.arange(len(score)))
    return {int(row): float(value) for row, value in zip(rows, score, strict=False)}


def _plain(value: object) -> BlockCell:
    if isinstance(value, float):
        return number(value) if np.isfinite(value) else str(value)
    return clip(str(value), _CELL_CHARACTERS)
