"""The scan step: sets suspected training rows aside, within what a reviewer can look at."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.arrays import npz
from holdfast.artifacts.documents import Count, ScanReport, Snapshot, Verdict, worst
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.modality import modality_of
from holdfast.modality.frames import chosen_rows
from holdfast.modality.protocol import Storage
from holdfast.model.inputs import Arrays, read_spec, read_split, rows_digest, without
from holdfast.model.scan.aside import set_aside
from holdfast.model.scan.report import held_out_labels, held_out_rows, not_judged, quarantine_rows, too_few
from holdfast.progress import say
from holdfast.quarantine.table import HELD_OUT_TABLE, TABLE, write_table
from holdfast.steps import by_role
from holdfast.workload.schema import ScanConfig

if TYPE_CHECKING:
    from holdfast.model.scan.combine import Findings, HeldOutErrors


def scan(snapshot: Ref, out: Path, *, config: ScanConfig, settings: Compute) -> Artifact[ScanReport]:
    """Scans the rows of `snapshot` and writes the report, the scores and the quarantine to `out`.

    At most `review_budget` of the training rows go to quarantine, the most suspicious first, besides those that an
    earlier scan set aside and that are not decided. Held-out rows are reported only. The verdict is pass when nothing
    is suspected or every suspect went to quarantine, fail when suspects stay in the training rows, and inconclusive
    when there are too few rows in a class to say.

    Raises:
        InputError: no rows, one class only, labels out of range or values that are not finite.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from holdfast.model.scan.combine import ScanSettings, check_rows, enough_rows, scan_held_out, scan_rows

    data = load(snapshot, Snapshot)
    spec, classes = read_spec(data), data.document.classes
    rows, held_out = (read_split(data, split, spec) for split in ("train", "test"))
    check_rows(rows, len(classes))
    if not enough_rows(rows.y, len(classes)):
        return _save(out, data, rows, config, None, None)
    device = settings.prepare()
    say(f"scan: {len(rows)} rows, {config.folds} folds")
    plan = ScanSettings(spec, classes, config.folds, config.epochs, device, settings.seed)
    with threadpool_limits(settings.threads):
        found = scan_rows(rows, plan)
        return _save(out, data, rows, config, found, scan_held_out(rows, held_out, found, plan))


def _save(
    out: Path,
    data: Artifact[Snapshot],
    rows: Arrays,
    config: ScanConfig,
    found: "Findings | None",
    held_out: "HeldOutErrors | None",
) -> Artifact[ScanReport]:
    """Writes what was found; None: there are too few rows to look."""
    scores = found.scores if found else {"score": np.zeros(len(rows))}
    suspected = found.suspects if found else np.zeros(len(rows), dtype=bool)
    budget = int(config.review_budget * len(rows))
    aside = set_aside(suspected, scores["score"], data.document, budget)
    few = too_few(rows.y, data.document.classes)
    report = ScanReport(
        detectors=found.detectors if found else (),
        suspects=Count(k=aside.suspects, n=len(rows)),
        budget=budget,
        quarantined=aside.quarantined,
        released=aside.released,
        undecided=aside.undecided,
        not_judged=not_judged(found, data.document.classes) if found else few,
        held_out=held_out_labels(held_out, data.document) if held_out else None,
        per_class=_per_class(rows.y[list(aside.quarantined)], data),
        applied=config.apply,
        clean_rows=rows_digest(without(rows, aside.left_out(applied=config.apply))),
        verdict=worst([aside.verdict(applied=config.apply), Verdict.INCONCLUSIVE if few else Verdict.PASS]),
        configuration=config.configuration,
        inputs=by_role(data),
    )
    tables = {TABLE: write_table(quarantine_rows(aside, rows.y, scores["score"], found, data))}
    if held_out is not None:
        tables[HELD_OUT_TABLE] = write_table(held_out_rows(held_out, data))
    return save(out, report, _files(data, scores, aside.quarantined) | tables)


def _per_class(y: NDArray[np.int64], data: Artifact[Snapshot]) -> tuple[int, ...]:
    return tuple(np.bincount(y, minlength=len(data.document.classes)).tolist())


def _files(data: Artifact[Snapshot], scores: dict[str, NDArray[np.float64]], held: tuple[int, ...]) -> dict[str, bytes]:
    """The scores of every row, and the rows in quarantine exactly as they were delivered."""
    name, rows = _HELD[modality_of(data.document.modality).storage](data, held)
    return {"scores.npz": npz(**scores), name: rows}


def _held_images(data: Artifact[Snapshot], held: tuple[int, ...]) -> tuple[str, bytes]:
    row = np.array(held, dtype=np.int64)
    with np.load(data.open("train.npz"), allow_pickle=False) as arrays:
        return "quarantine.npz", npz(x=arrays["x"][row], y=arrays["y"][row], row=row)


def _held_table(data: Artifact[Snapshot], held: tuple[int, ...]) -> tuple[str, bytes]:
    frame = chosen_rows(data.stream("train.parquet"), np.array(held, dtype=np.int64))
    # The table may have a column of this name itself; a delivered column is never overwritten.
    name = next(name for name in ("row", "holdfast_row", "holdfast_row_id") if name not in frame.columns)
    frame.insert(0, name, np.array(held, dtype=np.int64))
    return "quarantine.parquet", frame.reset_index(drop=True).to_parquet()


_HELD: dict[Storage, Callable[[Artifact[Snapshot], tuple[int, ...]], tuple[str, bytes]]] = {
    "npz": _held_images,
    "parquet": _held_table,
}
