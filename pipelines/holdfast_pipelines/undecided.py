"""Rows that a run set aside and that no reviewer has decided: the next run keeps them out."""

from pathlib import Path

from holdfast.artifacts.documents import ScanReport
from holdfast.artifacts.folder import DOCUMENT, Ref
from holdfast.artifacts.regular import resolved
from holdfast.progress import say
from holdfast.quarantine.reviews import newest_review
from holdfast.quarantine.step import hold, read_quarantine
from holdfast.workload.schema import Workload
from holdfast_pipelines.folder import place_of, read_artifact


def reviews_of(workload: Workload, folder: Path, default: Path | None) -> Path | None:
    """The folder of reviews that a run reads and adds to: the one that the workload names, otherwise `default`.

    None where the workload names one fixed review, which decides alone.

    Args:
        workload: as read, with paths relative to `folder`.
        folder: of the workload file.
        default: where `holdfast quarantine` keeps the reviews of this workload.
    """
    if workload.data.review is None:
        return default and default.resolve()
    ref = Ref.parse(workload.data.review)
    place = resolved(folder, ref.folder)
    return None if ref.digest is not None or (place / DOCUMENT).exists() else place


def with_reviews(workload: Workload, reviews: Path | None) -> Workload:
    """The workload with the folder `reviews`, where it names no review itself and the folder holds one."""
    if workload.data.review is not None or reviews is None or newest_review(reviews) is None:
        return workload
    return workload.model_copy(update={"data": workload.data.model_copy(update={"review": str(reviews)})})


def hold_undecided(out: Path, reviews: Path | None) -> None:
    """Adds the rows that the run in `out` set aside to `reviews`, as undecided ones."""
    if reviews is None or not (place_of(out, ScanReport) / DOCUMENT).exists():
        return
    report = read_artifact(out, ScanReport)
    if not (report.document.applied and report.document.quarantined):
        return
    review = hold(read_quarantine(report.folder, None), reviews)
    if review is not None and review.document.undecided:
        say(
            f"quarantine: {len(review.document.undecided)} rows stay out of every run until they are decided: "
            f"holdfast quarantine list --scan {report.folder}"
        )
