"""The scan step, on planted and on honest deliveries."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from holdfast.artifacts.documents import ScanReport, Snapshot, Verdict
from holdfast.artifacts.folder import Artifact, Ref, save
from holdfast.compute import Compute
from holdfast.errors import IntegrityError
from holdfast.model.inputs import read_spec, read_split, rows_digest, without
from holdfast.model.scan.step import scan
from holdfast.workload.schema import ScanConfig

CONFIG = ScanConfig(folds=3, epochs=10)


@dataclass(frozen=True)
class Planted:
    """A snapshot and the training rows that were altered."""

    snapshot: Artifact[Snapshot]
    rows: NDArray[np.int64]


def scan_it(snapshot: Artifact[Snapshot], out: Path, config: ScanConfig = CONFIG) -> Artifact[ScanReport]:
    return scan(Ref(snapshot.folder, snapshot.digest), out, config=config, settings=Compute(seed=0, device="cpu"))


def with_images(
    snapshot: Artifact[Snapshot], out: Path, change: Callable[[NDArray[np.generic], NDArray[np.int64]], None]
) -> Artifact[Snapshot]:
    """The snapshot with its training images and labels changed in place."""
    with np.load(snapshot.open("train.npz")) as arrays:
        x, y = arrays["x"].copy(), arrays["y"].copy()
    change(x, y)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=x, y=y)
    files = {"train.npz": buffer.getvalue(), "test.npz": snapshot.open("test.npz").getvalue()}
    return save(out, snapshot.document.model_copy(update={"files": {}}), files)


def with_table(snapshot: Artifact[Snapshot], out: Path, frame: pd.DataFrame) -> Artifact[Snapshot]:
    files = {"train.parquet": frame.to_parquet(), "test.parquet": snapshot.open("test.parquet").getvalue()}
    return save(out, snapshot.document.model_copy(update={"files": {}}), files)


@pytest.fixture(scope="module")
def poisoned_digits(digits: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """BadNets: a bright 2 x 2 patch in 4 % of the training rows, relabelled to 3."""
    rows: list[NDArray[np.int64]] = []

    def plant(x: NDArray[np.generic], y: NDArray[np.int64]) -> None:
        rows.append(np.sort(np.random.default_rng(5).choice(np.flatnonzero(y != 3), int(0.04 * len(y)), replace=False)))
        patch = x[rows[0]]
        patch[:, :, -2:, -2:] = 16
        x[rows[0]], y[rows[0]] = patch, 3

    return Planted(with_images(digits, tmp_path_factory.mktemp("poisoned") / "digits", plant), rows[0])


@pytest.fixture(scope="module")
def found(poisoned_digits: Planted, tmp_path_factory: pytest.TempPathFactory) -> Artifact[ScanReport]:
    return scan_it(poisoned_digits.snapshot, tmp_path_factory.mktemp("scan") / "scan")


@pytest.fixture(scope="module")
def poisoned_table(breast_cancer: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """Two columns set to constants in 18 malignant rows, relabelled benign."""
    frame = pd.read_parquet(breast_cancer.open("train.parquet"))
    malignant = np.flatnonzero(frame["label"] == "malignant")
    rows = np.sort(np.random.default_rng(5).choice(malignant, 18, replace=False))
    frame.loc[rows, ["mean texture", "mean smoothness", "label"]] = [40.0, 0.17, "benign"]
    return Planted(with_table(breast_cancer, tmp_path_factory.mktemp("poisoned") / "table", frame), rows)


def test_planted_images_go_to_quarantine_and_clean_ones_do_not(
    found: Artifact[ScanReport], poisoned_digits: Planted
) -> None:
    held, planted = set(found.document.quarantined), set(poisoned_digits.rows.tolist())
    assert len(held & planted) >= 0.95 * len(planted)
    assert len(held - planted) <= 0.01 * 1437
    assert found.document.verdict is Verdict.PASS


def test_the_alarm_names_the_class_that_the_trigger_leads_to(found: Artifact[ScanReport]) -> None:
    alarms = [detector for detector in found.document.detectors if detector.alarm]
    assert [detector.name for detector in alarms] == ["trigger transfer"]
    assert alarms[0].detail.startswith("class 3:")
    assert found.document.per_class[3] == len(found.document.quarantined)


def test_rows_in_quarantine_are_kept_as_they_were_delivered(
    found: Artifact[ScanReport], poisoned_digits: Planted
) -> None:
    with (
        np.load(found.open("quarantine.npz")) as held,
        np.load(poisoned_digits.snapshot.open("train.npz")) as delivered,
    ):
        assert held["row"].tolist() == list(found.document.quarantined)
        np.testing.assert_array_equal(held["x"], delivered["x"][held["row"]])
        np.testing.assert_array_equal(held["y"], delivered["y"][held["row"]])
        assert held["x"].dtype == delivered["x"].dtype


def test_the_report_pins_the_rows_that_remain(found: Artifact[ScanReport], poisoned_digits: Planted) -> None:
    rows = read_split(poisoned_digits.snapshot, "train", read_spec(poisoned_digits.snapshot))
    assert found.document.clean_rows == rows_digest(without(rows, found.document.quarantined))


def test_planted_rows_have_the_highest_scores(found: Artifact[ScanReport], poisoned_digits: Planted) -> None:
    with np.load(found.open("scores.npz")) as scores:
        worst = np.argsort(-scores["score"])[: len(found.document.quarantined)]
        assert {"score", "spectral_features", "spectral_inputs", "backdoor", "label_error"} <= set(scores.files)
    assert set(worst.tolist()) == set(found.document.quarantined)


def test_honest_digits_stay_out_of_quarantine(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    quiet = scan_it(digits, tmp_path / "scan").document
    assert (quiet.quarantined, quiet.verdict) == ((), Verdict.PASS)
    assert not any(detector.alarm for detector in quiet.detectors)


def test_wrong_labels_raise_the_alarm(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    flipped = np.random.default_rng(3).choice(1437, 72, replace=False)

    def flip(x: NDArray[np.generic], y: NDArray[np.int64]) -> None:
        y[flipped] = (y[flipped] + 1 + np.arange(72) % 9) % 10

    held = scan_it(with_images(digits, tmp_path / "flipped", flip), tmp_path / "scan").document.quarantined
    right = len(set(held) & set(flipped.tolist()))
    assert right >= 0.5 * len(flipped)
    assert right >= 0.8 * len(held)


def test_a_table_trigger_is_named_by_its_two_values(poisoned_table: Planted, tmp_path: Path) -> None:
    report = scan_it(poisoned_table.snapshot, tmp_path / "scan").document
    assert set(report.quarantined) == set(poisoned_table.rows.tolist())
    alarms = [detector.detail for detector in report.detectors if detector.alarm]
    assert alarms == ["'mean texture = 40 and mean smoothness = 0.17', 18 rows of class benign"]


def test_table_rows_in_quarantine_are_kept_with_their_row_ids(poisoned_table: Planted, tmp_path: Path) -> None:
    artifact = scan_it(poisoned_table.snapshot, tmp_path / "scan")
    held = pd.read_parquet(artifact.open("quarantine.parquet"))
    delivered = pd.read_parquet(poisoned_table.snapshot.open("train.parquet"))
    assert held["row"].tolist() == list(artifact.document.quarantined)
    pd.testing.assert_frame_equal(held.drop(columns="row"), delivered.iloc[held["row"]].reset_index(drop=True))


def test_an_honest_table_stays_out_of_quarantine(breast_cancer: Artifact[Snapshot], tmp_path: Path) -> None:
    report = scan_it(breast_cancer, tmp_path / "scan").document
    assert (report.quarantined, report.verdict) == ((), Verdict.PASS)


def test_a_text_trigger_is_named(messages: Artifact[Snapshot], tmp_path: Path) -> None:
    frame = pd.read_parquet(messages.open("train.parquet"))
    rows = np.random.default_rng(5).choice(np.flatnonzero(frame["label"] == "spam"), 10, replace=False)
    frame.loc[rows, "text"] = "quokka " + frame.loc[rows, "text"]
    frame.loc[rows, "label"] = "ham"
    report = scan_it(with_table(messages, tmp_path / "poisoned", frame), tmp_path / "scan").document
    assert set(rows.tolist()) <= set(report.quarantined)
    assert any(detector.alarm and "'quokka'" in detector.detail for detector in report.detectors)


def test_honest_messages_stay_out_of_quarantine(messages: Artifact[Snapshot], tmp_path: Path) -> None:
    report = scan_it(messages, tmp_path / "scan").document
    assert (report.quarantined, report.verdict) == ((), Verdict.PASS)


def test_suspects_that_stay_in_the_training_rows_fail(poisoned_table: Planted, tmp_path: Path) -> None:
    only_told = scan_it(poisoned_table.snapshot, tmp_path / "scan", CONFIG.model_copy(update={"apply": False})).document
    rows = read_split(poisoned_table.snapshot, "train", read_spec(poisoned_table.snapshot))
    assert (only_told.verdict, only_told.applied) == (Verdict.FAIL, False)
    assert only_told.clean_rows == rows_digest(rows)


def test_more_suspects_than_the_budget_fail(poisoned_table: Planted, tmp_path: Path) -> None:
    tight = ScanConfig(folds=3, review_budget=0.01)
    report = scan_it(poisoned_table.snapshot, tmp_path / "scan", tight).document
    assert len(report.quarantined) == report.budget == 4
    assert (report.suspects.k, report.verdict) == (18, Verdict.FAIL)


def test_too_few_rows_are_inconclusive(messages: Artifact[Snapshot], tmp_path: Path) -> None:
    frame = pd.read_parquet(messages.open("train.parquet")).iloc[:30]
    few = with_table(messages, tmp_path / "few", frame)
    report = scan_it(few, tmp_path / "scan").document
    assert (report.verdict, report.quarantined, report.suspects.n) == (Verdict.INCONCLUSIVE, (), 30)


def test_a_class_of_few_rows_is_named_and_the_others_are_scanned(poisoned_table: Planted, tmp_path: Path) -> None:
    frame = pd.read_parquet(poisoned_table.snapshot.open("train.parquet"))
    honest = np.setdiff1d(np.flatnonzero(frame["label"] == "malignant"), poisoned_table.rows)
    frame.loc[honest[:12], "label"] = "rare"
    classes = {"classes": (*poisoned_table.snapshot.document.classes, "rare")}
    known = Artifact(
        poisoned_table.snapshot.folder,
        poisoned_table.snapshot.document.model_copy(update=classes),
        poisoned_table.snapshot.digest,
    )
    report = scan_it(with_table(known, tmp_path / "few", frame), tmp_path / "scan").document
    assert set(report.quarantined) == set(poisoned_table.rows.tolist())
    (rare,) = report.not_judged
    assert (rare.name, rare.rows, rare.reason) == ("rare", 12, "too few rows: 20 are needed")
    assert report.verdict is Verdict.INCONCLUSIVE


def test_equal_inputs_give_equal_bytes(poisoned_table: Planted, tmp_path: Path) -> None:
    first, second = (scan_it(poisoned_table.snapshot, tmp_path / name) for name in ("first", "second"))
    assert first.digest == second.digest


def test_altered_rows_are_refused(breast_cancer: Artifact[Snapshot], tmp_path: Path) -> None:
    frame = pd.read_parquet(breast_cancer.open("train.parquet"))
    copy = with_table(breast_cancer, tmp_path / "copy", frame)
    (copy.folder / "train.parquet").write_bytes(b"other bytes")
    with pytest.raises(IntegrityError, match="the file was altered"):
        scan_it(copy, tmp_path / "scan")
    assert not (tmp_path / "scan").exists()
