"""A run reads and adds to the folder of reviews, so that undecided rows stay out of the next one."""

from pathlib import Path

import numpy as np
import pytest

from holdfast.artifacts.arrays import npz
from holdfast.artifacts.documents import Count, ScanReport, Snapshot, SourceFile, Verdict
from holdfast.artifacts.folder import save
from holdfast.quarantine.reviews import newest_review
from holdfast.workload.schema import Workload
from holdfast_pipelines.parameters import located
from holdfast_pipelines.undecided import hold_undecided, reviews_of, with_reviews


def workload(review: str | None = None) -> Workload:
    return Workload(
        name="toy",
        modality="image",
        data={"source": "sklearn:digits", "review": review},
        network={"architecture": "cnn"},
        threat={"norm": "linf", "epsilon": "1/16"},
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a snapshot of eight images and a scan that set two of them aside."""
    x, y = np.random.default_rng(0).integers(0, 9, (8, 1, 2, 2)), np.arange(8) % 2
    digest = "a" * 64
    document = Snapshot(
        name="toy", modality="image", root=digest, sources=(SourceFile(path="x", sha256=digest, bytes=1),), label="y",
        classes=("0", "1"), train_rows=8, test_rows=1, train_per_class=(4, 4), test_per_class=(1, 0), shape=(1, 2, 2),
    )  # fmt: skip
    data = save(tmp_path / "run" / "steps" / "snapshot", document, {"train.npz": npz(x=x, y=y)})
    report = ScanReport(
        detectors=(), suspects=Count(k=2, n=8), budget=2, quarantined=(1, 5), per_class=(0, 2), clean_rows=digest,
        verdict=Verdict.PASS, inputs={"snapshot": data.digest},
    )  # fmt: skip
    held = np.array([1, 5])
    files = {"quarantine.npz": npz(x=x[held], y=y[held], row=held), "scores.npz": npz(score=np.zeros(8))}
    save(tmp_path / "run" / "steps" / "scan", report, files)
    return tmp_path / "run"


def test_what_a_run_set_aside_is_in_the_review_of_the_next_run(run: Path, tmp_path: Path) -> None:
    reviews = reviews_of(workload(), tmp_path, tmp_path / "reviews" / "toy")
    assert with_reviews(workload(), reviews).data.review is None
    hold_undecided(run, reviews)
    assert len(newest_review(reviews).document.undecided) == 2
    following = located(with_reviews(workload(), reviews), tmp_path)
    assert following.data.review == f"{reviews / '0001'}@{newest_review(reviews).digest}"


def test_the_folder_that_the_workload_names_is_added_to(run: Path, tmp_path: Path) -> None:
    reviews = reviews_of(workload("ours"), tmp_path, tmp_path / "default")
    assert reviews == tmp_path / "ours"
    hold_undecided(run, reviews)
    assert newest_review(tmp_path / "default") is None


def test_a_fixed_review_decides_alone(run: Path, tmp_path: Path) -> None:
    hold_undecided(run, tmp_path / "ours")
    fixed = newest_review(tmp_path / "ours")
    for name in ("ours/0001", f"ours/0001@{fixed.digest}"):
        reviews = reviews_of(workload(name), tmp_path, tmp_path / "default")
        hold_undecided(run, reviews)
        assert reviews is None
        assert with_reviews(workload(name), reviews).data.review == name


def test_a_run_without_a_quarantine_writes_no_review(tmp_path: Path) -> None:
    hold_undecided(tmp_path / "run", tmp_path / "reviews")
    assert not (tmp_path / "reviews").exists()
