"""Held-out rows with wrong labels are counted and listed, and stay."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdfast.artifacts.documents import ScanReport, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, save
from holdfast.compute import Compute
from holdfast.model.scan.step import scan
from holdfast.quarantine.table import read_table
from holdfast.workload.schema import ScanConfig


def with_test_rows(snapshot: Artifact[Snapshot], out: Path, frame: pd.DataFrame) -> Artifact[Snapshot]:
    files = {"train.parquet": snapshot.open("train.parquet").getvalue(), "test.parquet": frame.to_parquet()}
    return save(out, snapshot.document.model_copy(update={"files": {}}), files)


def scan_it(snapshot: Artifact[Snapshot], out: Path) -> Artifact[ScanReport]:
    settings = Compute(seed=0, device="cpu")
    return scan(Ref(snapshot.folder, snapshot.digest), out, config=ScanConfig(folds=3), settings=settings)


@pytest.fixture(scope="module")
def flipped(breast_cancer: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> tuple[ScanReport, set[int]]:
    """What a scan reports of 23 wrong labels among the held-out rows, and which rows these are; its table agrees."""
    folder = tmp_path_factory.mktemp("flipped")
    frame = pd.read_parquet(breast_cancer.open("test.parquet"))
    rows = np.random.default_rng(1).choice(len(frame), len(frame) // 5, replace=False)
    frame.loc[rows, "label"] = np.where(frame.loc[rows, "label"] == "benign", "malignant", "benign")
    found = scan_it(with_test_rows(breast_cancer, folder / "snapshot", frame), folder / "scan")
    lines = read_table(found.open("held_out.csv").getvalue())
    assert tuple(line.row for line in lines) == found.document.held_out.rows
    assert [line.label for line in lines] == frame["label"].iloc[[line.row for line in lines]].tolist()
    return found.document, set(rows.tolist())


def test_wrong_held_out_labels_are_counted(flipped: tuple[ScanReport, set[int]]) -> None:
    report, wrong = flipped
    suspects = report.held_out.suspects
    assert suspects.n == 114
    assert 0.5 * len(wrong) <= suspects.k <= 1.2 * len(wrong)
    assert len(set(report.held_out.rows) & wrong) >= 0.9 * suspects.k
    assert sum(report.held_out.per_class) == suspects.k


def test_they_change_nothing_about_the_training_rows(
    flipped: tuple[ScanReport, set[int]], breast_cancer: Artifact[Snapshot], tmp_path: Path
) -> None:
    clean = scan_it(breast_cancer, tmp_path / "scan").document
    assert flipped[0].verdict == clean.verdict == "pass"
    assert flipped[0].clean_rows == clean.clean_rows
    assert flipped[0].quarantined == clean.quarantined == ()


def test_held_out_labels_that_are_right_are_not_suspected(breast_cancer: Artifact[Snapshot], tmp_path: Path) -> None:
    found = scan_it(breast_cancer, tmp_path / "scan")
    assert found.document.held_out.suspects.model_dump() == {"k": 0, "n": 114}
    assert read_table(found.open("held_out.csv").getvalue()) == []


def test_another_share_of_a_class_is_no_wrong_label(breast_cancer: Artifact[Snapshot], tmp_path: Path) -> None:
    frame = pd.read_parquet(breast_cancer.open("test.parquet"))
    kept = frame[(frame["label"] == "benign") | (np.cumsum(frame["label"] == "malignant") <= 20)].reset_index(drop=True)
    report = scan_it(with_test_rows(breast_cancer, tmp_path / "snapshot", kept), tmp_path / "scan").document
    assert report.held_out.suspects.k == 0
