"""The scan step: sets suspected training rows aside, within what a reviewer can look at."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.arrays import npz
from holdfast.artifacts.documents import Count, Detector, Reviewed, ScanReport, Snapshot, Verdict
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.modality import modality_of
from holdfast.modality.protocol import Storage
from holdfast.model.inputs import Arrays, read_spec, read_split, rows_digest, without
from holdfast.progress import say
from holdfast.steps import by_role
from holdfast.workload.schema import ScanConfig


def scan(snapshot: Ref, out: Path, *, config: ScanConfig, settings: Compute) -> Artifact[ScanReport]:
    """Scans the training rows of `snapshot` and writes the report, the scores and the quarantine to `out`.

    At most `review_budget` of the rows go to quarantine, the most suspicious first. The verdict is pass when nothing
    is suspected or every suspect went to quarantine, fail when suspects stay in the training rows, and inconclusive
    when there are too few rows to say.

    Raises:
        InputError: no rows, one class only, labels out of range or values that are not finite.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from holdfast.model.scan.combine import ScanSettings, check_rows, enough_rows, scan_rows

    data = load(snapshot, Snapshot)
    spec = read_spec(data)
    rows = read_split(data, "train", spec)
    check_rows(rows, len(data.document.classes))
    if not enough_rows(rows.y, len(data.document.classes)):
        too_few = _report(data, rows, config, verdict=Verdict.INCONCLUSIVE)
        return save(out, too_few, _files(data, {"score": np.zeros(len(rows))}, ()))
    device = settings.prepare()
    say(f"scan: {len(rows)} rows, {config.folds} folds")
    plan = ScanSettings(spec, data.document.classes, config.folds, config.epochs, device, settings.seed)
    with threadpool_limits(settings.threads):
        found = scan_rows(rows, plan)
    suspects, released = _apart(found.suspects, data.document.review)
    budget, count = _budget(rows, config), int(suspects.sum())
    held = _quarantine(suspects, found.scores["score"], budget)
    report = _report(
        data,
        rows,
        config,
        detectors=found.detectors,
        suspects=count,
        held=held,
        released=released,
        verdict=_verdict(count, budget, applied=config.apply),
    )
    return save(out, report, _files(data, found.scores, held))


def _report(
    data: Artifact[Snapshot],
    rows: Arrays,
    config: ScanConfig,
    *,
    verdict: Verdict,
    detectors: tuple[Detector, ...] = (),
    suspects: int = 0,
    held: tuple[int, ...] = (),
    released: tuple[int, ...] = (),
) -> ScanReport:
    return ScanReport(
        detectors=detectors,
        suspects=Count(k=suspects, n=len(rows)),
        budget=_budget(rows, config),
        quarantined=held,
        released=released,
        per_class=_per_class(rows, held, data),
        applied=config.apply,
        clean_rows=rows_digest(without(rows, held) if config.apply else rows),
        verdict=verdict,
        inputs=by_role(data),
    )


def _budget(rows: Arrays, config: ScanConfig) -> int:
    return int(config.review_budget * len(rows))


def _apart(suspects: NDArray[np.bool_], review: Reviewed | None) -> tuple[NDArray[np.bool_], tuple[int, ...]]:
    """The suspects bool[N] without the rows that a reviewer released, which stay; and the ids of those among them."""
    known = np.zeros(len(suspects), dtype=bool)
    known[list(review.released if review else ())] = True
    return suspects & ~known, tuple(int(row) for row in np.flatnonzero(suspects & known))


def _verdict(suspects: int, budget: int, *, applied: bool) -> Verdict:
    left_in = suspects > 0 and not applied
    return Verdict.FAIL if left_in or suspects > budget else Verdict.PASS


def _quarantine(suspects: NDArray[np.bool_], score: NDArray[np.float64], budget: int) -> tuple[int, ...]:
    found = np.flatnonzero(suspects)
    worst_first = found[np.argsort(-score[found], kind="stable")]
    return tuple(sorted(int(row) for row in worst_first[:budget]))


def _per_class(rows: Arrays, held: tuple[int, ...], data: Artifact[Snapshot]) -> tuple[int, ...]:
    counts = np.bincount(rows.y[list(held)], minlength=len(data.document.classes))
    return tuple(int(count) for count in counts)


def _files(data: Artifact[Snapshot], scores: dict[str, NDArray[np.float64]], held: tuple[int, ...]) -> dict[str, bytes]:
    """The scores of every row, and the rows in quarantine exactly as they were delivered."""
    name, rows = _HELD[modality_of(data.document.modality).storage](data, held)
    return {"scores.npz": npz(**scores), name: rows}


def _held_images(data: Artifact[Snapshot], held: tuple[int, ...]) -> tuple[str, bytes]:
    row = np.array(held, dtype=np.int64)
    with np.load(data.open("train.npz"), allow_pickle=False) as arrays:
        return "quarantine.npz", npz(x=arrays["x"][row], y=arrays["y"][row], row=row)


def _held_table(data: Artifact[Snapshot], held: tuple[int, ...]) -> tuple[str, bytes]:
    import pandas as pd

    frame = pd.read_parquet(data.open("train.parquet")).iloc[list(held)]
    # The table may have a column of this name itself; a delivered column is never overwritten.
    name = next(name for name in ("row", "holdfast_row", "holdfast_row_id") if name not in frame.columns)
    frame.insert(0, name, np.array(held, dtype=np.int64))
    return "quarantine.parquet", frame.reset_index(drop=True).to_parquet()


_HELD: dict[Storage, Callable[[Artifact[Snapshot], tuple[int, ...]], tuple[str, bytes]]] = {
    "npz": _held_images,
    "parquet": _held_table,
}
