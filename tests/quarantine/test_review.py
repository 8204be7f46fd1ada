"""From a quarantine to the next snapshot: what a reviewer decides, and what it changes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from deliveries_under_review import DIGITS, set_aside, table_config
from typer.testing import CliRunner

from holdfast.artifacts.documents import Review, Snapshot
from holdfast.artifacts.folder import DOCUMENT, Artifact, load, save
from holdfast.artifacts.inspect import verify_chain
from holdfast.cli import app
from holdfast.compute import Compute
from holdfast.data.snapshot.step import snapshot
from holdfast.errors import ArtifactError, HoldfastError, InputError, IntegrityError
from holdfast.model.scan.step import scan
from holdfast.quarantine.reviews import find_review
from holdfast.workload.schema import ScanConfig


@pytest.fixture
def run(digits: Artifact[Snapshot], tmp_path: Path) -> Path:
    """A run folder with a snapshot and a scan that set rows 3, 10 and 12 aside."""
    (tmp_path / "snapshot").symlink_to(digits.folder)
    set_aside(digits, tmp_path / "scan", (3, 10, 12))
    return tmp_path


def quarantine(run: Path, command: str, *args: str) -> str:
    """The command's output; a failure is raised as the step raised it."""
    words = ["quarantine", command, "--scan", str(run / "scan"), "--reviews", str(run / "reviews"), *args]
    done = CliRunner().invoke(app, words)
    if isinstance(done.exception, HoldfastError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def drop(run: Path, rows: str, by: str = "ann", why: str = "patch in the corner") -> str:
    return quarantine(run, "drop", "--rows", rows, "--by", by, "--why", why)


def release(run: Path, rows: str, by: str = "bo", why: str = "just a bad four") -> str:
    return quarantine(run, "release", "--rows", rows, "--by", by, "--why", why)


def train_rows(data: Artifact[Snapshot]) -> np.ndarray:
    with np.load(data.open("train.npz")) as arrays:
        return arrays["x"]


def test_the_most_suspicious_row_stands_first_with_what_was_decided(run: Path) -> None:
    drop(run, "10")
    lines = quarantine(run, "list").splitlines()
    assert [line.split()[1] for line in lines] == ["3", "10", "12"]
    assert lines[0].endswith("open")
    assert lines[1].endswith("dropped by ann: patch in the corner")


def test_a_row_is_shown_as_a_picture_with_its_scores(run: Path) -> None:
    shown = quarantine(run, "show", "--row", "3")
    assert "@@" in shown
    assert "label_error          0.4500" in shown
    told = json.loads(quarantine(run, "show", "--row", "3", "--json"))
    assert (np.array(told["values"]).shape, told["scores"]["score"]) == ((1, 8, 8), 0.9)


def test_a_dropped_row_is_left_out_of_the_next_snapshot(run: Path, digits: Artifact[Snapshot]) -> None:
    drop(run, "3,12")
    after = snapshot(DIGITS, run / "next", review=str(run / "reviews"))
    np.testing.assert_array_equal(train_rows(after), np.delete(train_rows(digits), [3, 12], axis=0))
    assert after.document.review.model_dump() == {
        "decisions": 2, "dropped": 2, "dropped_held_out": 0, "released": (),
    }  # fmt: skip
    assert after.document.root == digits.document.root
    assert after.document.test_rows == digits.document.test_rows


def test_a_released_row_is_remembered_at_its_new_place(run: Path, digits: Artifact[Snapshot]) -> None:
    drop(run, "3")
    release(run, "10")
    after = snapshot(DIGITS, run / "next", review=str(run / "reviews"))
    assert after.document.review.released == (9,)
    np.testing.assert_array_equal(train_rows(after)[9], train_rows(digits)[10])


def test_the_snapshot_leads_back_to_the_scan_that_was_reviewed(run: Path) -> None:
    drop(run, "3")
    after = snapshot(DIGITS, run / "next", review=str(run / "reviews"))
    findings = {finding.role: finding.state for finding in verify_chain(after.folder, run)}
    assert findings["review"] == findings["review < scan"] == "ok"


def test_every_decision_is_a_version_of_its_own(run: Path) -> None:
    drop(run, "3")
    first = (run / "reviews" / "0001" / DOCUMENT).read_bytes()
    release(run, "10-12")
    assert (run / "reviews" / "0001" / DOCUMENT).read_bytes() == first
    newest = find_review(str(run / "reviews"))
    assert newest.folder.name == "0002"
    assert newest.document.inputs["review"] == load(run / "reviews" / "0001", Review).digest
    said = [(entry.decision, entry.by) for entry in newest.document.entries]
    assert said == [("drop", "ann"), ("release", "bo"), ("release", "bo")]


def test_deciding_the_same_again_changes_nothing(run: Path) -> None:
    drop(run, "3")
    drop(run, "3", by="someone else")
    assert [path.name for path in (run / "reviews").iterdir()] == ["0001"]
    assert find_review(str(run / "reviews")).document.entries[0].by == "ann"


def test_a_row_is_not_decided_twice_differently(run: Path) -> None:
    drop(run, "3")
    with pytest.raises(
        InputError,
        match="cannot release row 3: it was dropped by ann \\(patch in the corner\\); to undo that",
    ):
        release(run, "3")


def test_all_rows_are_decided_at_once(run: Path) -> None:
    quarantine(run, "release", "--all", "--by", "bo", "--why", "looked at every one")
    assert len(find_review(str(run / "reviews")).document.entries) == 3


@pytest.mark.parametrize(
    ("command", "args", "kind", "message"),
    [
        ("show", ("--row", "4"), InputError, "expected a row in quarantine, found no row 4"),
        ("drop", ("--rows", "4", "--by", "a", "--why", "w"), InputError, "rows in quarantine, found none at 4"),
        ("drop", ("--rows", "3", "--by", " ", "--why", "w"), InputError, "cannot decide without a name"),
        ("list", ("--snapshot", "nowhere"), ArtifactError, "nowhere/artifact.json: expected a file of an artifact"),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_one_line(
    run: Path, command: str, args: tuple[str, ...], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as refused:
        quarantine(run, command, *args)
    assert "\n" not in str(refused.value)


def test_the_command_line_says_it_in_one_line(run: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "holdfast",
        "quarantine",
        "drop",
        "--scan",
        run / "scan",
        "--by",
        "a",
        "--why",
        "w",
    ]
    failed = subprocess.run([*command, "--rows", "77"], capture_output=True, text=True, check=False, cwd=run)
    assert (failed.returncode, failed.stderr.count("\n"), failed.stdout) == (1, 1, "")
    assert subprocess.run(command, capture_output=True, check=False, cwd=run).returncode == 2
    done = subprocess.run([*command, "--all", "--json"], capture_output=True, text=True, check=False, cwd=run)
    assert done.stdout == (run / ".holdfast" / "reviews" / "digits" / "0001" / DOCUMENT).read_text()


def test_another_snapshot_than_the_scanned_one_is_refused(run: Path, digits: Artifact[Snapshot]) -> None:
    other = save(run / "other", digits.document.model_copy(update={"name": "other", "files": {}}))
    with pytest.raises(IntegrityError, match="expected artifact"):
        quarantine(run, "list", "--snapshot", str(other.folder))


def test_a_review_that_is_not_there_stops_the_snapshot(run: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a review or a folder of reviews, found none"):
        snapshot(DIGITS, run / "next", review=str(run / "reviews"))
    drop(run, "3")
    with pytest.raises(IntegrityError, match="expected artifact 000000000000"):
        snapshot(DIGITS, run / "next", review=f"{run / 'reviews' / '0001'}@{'0' * 64}")


def test_a_review_that_leaves_too_few_rows_is_refused(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    (tmp_path / "snapshot").symlink_to(digits.folder)
    with np.load(digits.open("train.npz")) as arrays:
        zeros = np.flatnonzero(arrays["y"] == 0)
    set_aside(digits, tmp_path / "scan", tuple(map(int, zeros)))
    quarantine(tmp_path, "drop", "--all", "--by", "ann", "--why", "no zeros")
    with pytest.raises(InputError, match=r"expected at least 2 rows of each class, found fewer of '0' \(0\)"):
        snapshot(DIGITS, tmp_path / "next", review=str(tmp_path / "reviews"))


def test_a_decision_holds_in_a_delivery_of_another_order_and_form(planted: Path, tmp_path: Path) -> None:
    data = snapshot(table_config(planted), tmp_path / "snapshot")
    set_aside(data, tmp_path / "scan", (5, 50))
    drop(tmp_path, "5,50")
    frame = pd.read_csv(planted, float_precision="round_trip").sample(frac=1, random_state=1)
    frame[frame.columns[::-1]].to_parquet(tmp_path / "next.parquet", index=False)
    after = snapshot(table_config(tmp_path / "next.parquet"), tmp_path / "next", review=str(tmp_path / "reviews"))
    assert after.document.review.dropped + after.document.review.dropped_held_out == 2


def test_released_rows_are_counted_and_not_set_aside_again(planted: Path, tmp_path: Path) -> None:
    first = snapshot(table_config(planted), tmp_path / "snapshot")
    rows = np.flatnonzero(pd.read_parquet(first.open("train.parquet"))["mean texture"] == 40).tolist()
    set_aside(first, tmp_path / "scan", rows)
    release(tmp_path, f"{rows[0]},{rows[1]}")
    second = snapshot(table_config(planted), tmp_path / "again" / "snapshot", review=str(tmp_path / "reviews"))
    settings = Compute(seed=0, device="cpu")
    found = scan(second.folder, tmp_path / "again" / "scan", config=ScanConfig(folds=2), settings=settings)
    assert second.document.train_rows == first.document.train_rows
    assert found.document.released == tuple(rows[:2])
    assert (found.document.quarantined, found.document.suspects.k) == (tuple(rows[2:]), len(rows) - 2)
    assert f"stay because they were released: {rows[0]}, {rows[1]}" in quarantine(tmp_path / "again", "list")
