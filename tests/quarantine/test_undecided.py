"""Rows that were set aside and are not decided stay out, by what they hold, until a reviewer releases them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from deliveries_under_review import set_aside, table_config
from typer.testing import CliRunner

from holdfast.artifacts.documents import Decision, Review, Snapshot, Verdict
from holdfast.artifacts.folder import Artifact
from holdfast.cli import app
from holdfast.compute import Compute
from holdfast.data.snapshot.step import snapshot
from holdfast.model.inputs import read_spec, read_split, rows_digest, without
from holdfast.model.scan.step import scan
from holdfast.quarantine.reviews import find_review, newest_review
from holdfast.quarantine.step import Verdicts, decide, hold, read_quarantine
from holdfast.quarantine.table import read_table
from holdfast.workload.schema import ScanConfig

HELD = (5, 50, 51, 200)


@pytest.fixture
def first(planted: Path, tmp_path: Path) -> Artifact[Snapshot]:
    """A delivery, of which a scan set four honest rows aside that no detector would suspect again."""
    frame = pd.read_csv(planted)
    frame[frame["mean texture"] != 40].to_csv(tmp_path / "first.csv", index=False)
    data = snapshot(table_config(tmp_path / "first.csv"), tmp_path / "snapshot")
    set_aside(data, tmp_path / "scan", HELD)
    hold(read_quarantine(tmp_path / "scan", None), tmp_path / "reviews")
    return data


def held_rows(data: Artifact[Snapshot], rows: tuple[int, ...]) -> set[tuple[object, ...]]:
    frame = pd.read_parquet(data.open("train.parquet"))
    return {tuple(row) for row in frame.iloc[list(rows)].itertuples(index=False)}


def next_run(source: Path, tmp_path: Path, name: str, seed: int) -> tuple[Artifact[Snapshot], tuple[int, ...]]:
    """A snapshot of the next delivery under the reviews, and what its scan sets aside; the scan is held, too."""
    data = snapshot(table_config(source), tmp_path / name / "snapshot", review=str(tmp_path / "reviews"))
    config, settings = ScanConfig(folds=2), Compute(seed=seed, device="cpu")
    found = scan(data.folder, tmp_path / name / "scan", config=config, settings=settings)
    hold(read_quarantine(found.folder, None), tmp_path / "reviews")
    assert found.document.undecided == data.document.undecided.train
    return data, found.document.quarantined


def test_undecided_rows_stay_out_of_two_runs_with_other_seeds(first: Artifact[Snapshot], tmp_path: Path) -> None:
    for seed in (1, 2):
        data, aside = next_run(tmp_path / "first.csv", tmp_path, f"run{seed}", seed)
        assert held_rows(data, aside) == held_rows(first, HELD)


def test_they_stay_out_of_a_delivery_in_another_order_with_new_rows(first: Artifact[Snapshot], tmp_path: Path) -> None:
    frame = pd.read_csv(tmp_path / "first.csv", float_precision="round_trip")
    more = frame.sample(60, random_state=3)
    more[more.columns[:-1]] *= 1.01
    pd.concat([more, frame]).sample(frac=1, random_state=1).to_parquet(tmp_path / "next.parquet", index=False)
    data, aside = next_run(tmp_path / "next.parquet", tmp_path, "next", 1)
    assert data.document.train_rows > first.document.train_rows
    assert held_rows(data, aside) < held_rows(first, HELD)
    assert len(aside) + data.document.undecided.held_out == len(HELD)


def test_a_scan_that_only_reports_keeps_them_out_all_the_same(first: Artifact[Snapshot], tmp_path: Path) -> None:
    data = snapshot(table_config(tmp_path / "first.csv"), tmp_path / "next", review=str(tmp_path / "reviews"))
    config = ScanConfig(folds=2, apply=False)
    found = scan(data.folder, tmp_path / "told", config=config, settings=Compute(seed=1, device="cpu")).document
    assert found.left_out == found.undecided == HELD
    rows = read_split(data, "train", read_spec(data))
    assert found.clean_rows == rows_digest(without(rows, HELD))
    assert found.verdict is (Verdict.PASS if found.suspects.k == len(HELD) else Verdict.FAIL)


def test_a_release_and_a_drop_hold_for_later_deliveries(first: Artifact[Snapshot], tmp_path: Path) -> None:
    held = read_quarantine(tmp_path / "scan", None)
    decide(held, Verdicts("release", "5", "bo", "rare, but real"), tmp_path / "reviews")
    decide(held, Verdicts("drop", "50", "bo", "a wrong label"), tmp_path / "reviews")
    for seed in (1, 2):
        data, aside = next_run(tmp_path / "first.csv", tmp_path, f"run{seed}", seed)
        assert held_rows(data, aside) == held_rows(first, (51, 200))
        assert held_rows(data, data.document.review.released) == held_rows(first, (5,))
        assert data.document.train_rows == first.document.train_rows - 1


def test_rows_without_a_decision_are_undecided_in_the_review(first: Artifact[Snapshot], tmp_path: Path) -> None:
    held = read_quarantine(tmp_path / "scan", None)
    review, _ = decide(held, Verdicts("release", "5", "bo", "fine"), tmp_path / "reviews")
    assert set(review.document.undecided) == {row.digest for row in held.rows if row.id != 5}


def test_holding_the_same_rows_again_writes_nothing(first: Artifact[Snapshot], tmp_path: Path) -> None:
    before = newest_review(tmp_path / "reviews")
    assert hold(read_quarantine(tmp_path / "scan", None), tmp_path / "reviews").digest == before.digest


def test_an_undecided_row_takes_no_place_in_the_budget(planted: Path, tmp_path: Path) -> None:
    data = snapshot(table_config(planted), tmp_path / "snapshot")
    set_aside(data, tmp_path / "scan", (5, 50))
    hold(read_quarantine(tmp_path / "scan", None), tmp_path / "reviews")
    again = snapshot(table_config(planted), tmp_path / "next" / "snapshot", review=str(tmp_path / "reviews"))
    config = ScanConfig(folds=2, review_budget=0.01)
    found = scan(again.folder, tmp_path / "next" / "scan", config=config, settings=Compute(seed=0, device="cpu"))
    assert found.document.undecided == (5, 50)
    assert len(found.document.quarantined) == found.document.budget + 2


def test_the_list_names_them_and_the_hold_command_writes_a_review(first: Artifact[Snapshot], tmp_path: Path) -> None:
    data, _ = next_run(tmp_path / "first.csv", tmp_path, "next", 1)
    where = ["--scan", str(tmp_path / "next" / "scan")]
    listed = CliRunner().invoke(app, ["quarantine", "list", *where])
    assert "4 rows were set aside by an earlier scan and are undecided: 5, 50, 51, 200" in listed.stdout
    assert listed.stdout.count("set aside before") == 4
    done = CliRunner().invoke(app, ["quarantine", "hold", *where, "--reviews", str(tmp_path / "new")])
    assert done.stdout.startswith("4 rows are undecided and stay out; review ")
    assert len(find_review(str(tmp_path / "new")).document.undecided) == 4


def test_the_table_begins_with_the_most_suspect_row(first: Artifact[Snapshot], tmp_path: Path) -> None:
    next_run(tmp_path / "first.csv", tmp_path, "next", 1)
    lines = read_table((tmp_path / "next" / "scan" / "quarantine.csv").read_bytes())
    scores = [line.score for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert {line.row for line in lines} == set(HELD)
    delivered = (tmp_path / "first.csv").read_text().splitlines()
    rows = {row.id: row for row in read_quarantine(tmp_path / "next" / "scan", None).rows}
    for line in lines:
        *values, label = delivered[int(line.place.removeprefix("first.csv line ")) - 1].split(",")
        assert label == line.label == rows[line.row].label
        assert list(map(float, values)) == list(rows[line.row].values.values())


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ({"undecided": ("a" * 64, "a" * 64)}, "named twice or decided"),
        ({"undecided": ("a" * 64,), "entries": (Decision(row="a" * 64, decision="drop", by="a", why="w"),)}, "decided"),
        ({}, "a review of no row"),
    ],
)
def test_a_review_is_about_each_row_once(rows: dict[str, object], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        Review(name="x", **rows)


def test_digests_name_the_row_whatever_its_place(first: Artifact[Snapshot], tmp_path: Path) -> None:
    data, aside = next_run(tmp_path / "first.csv", tmp_path, "next", 1)
    again = read_quarantine(tmp_path / "next" / "scan", None)
    before = read_quarantine(tmp_path / "scan", None)
    assert {row.digest for row in again.rows} == {row.digest for row in before.rows}
    assert np.array_equal(sorted(aside), HELD)
