"""Exercises are scored by what was expected and when; stolen keys are of no use once they are revoked."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from holdfast.artifacts.documents import GameDayReport, Verdict
from holdfast.artifacts.folder import load
from holdfast.cli import app
from holdfast_pipelines.demo import signed
from holdfast_pipelines.gameday import exercises
from holdfast_pipelines.gameday.exercises import EXERCISES, GameDayExercise, GameDaySetup, forge
from holdfast_pipelines.gameday.score import Scoreboard, page, report
from tests.attestation.chains import signed_run


def board(*seconds):
    found = Scoreboard(iter(seconds).__next__)
    found.begin()
    return found


def test_an_exercise_passes_where_all_held_in_time():
    found = board(0, 2, 2, 5, 5)
    found.detect("the attack is seen", "yes", held=True)
    found.secure("clients are safe", "yes", held=True)
    made = report(found, "toy", seed=1, stated=5)
    assert (made.detected, made.safe, made.verdict) == (2, 5, Verdict.PASS)
    assert report(found, "toy", seed=1, stated=4.9).verdict is Verdict.FAIL


@pytest.mark.parametrize("missing", ["detected", "safe", "expectation"])
def test_an_exercise_fails_where_one_thing_is_missing(missing):
    found = board(*range(9))
    found.detect("the attack is seen", "", held=missing != "detected")
    found.secure("clients are safe", "", held=missing != "safe")
    found.expect("nothing else is broken", "", held=missing != "expectation")
    made = report(found, "toy", seed=0, stated=100)
    assert made.verdict is Verdict.FAIL
    assert "NOT" not in page(made)


def test_a_time_that_was_measured_elsewhere_counts():
    found = board(0, 90, 90)
    found.detected = 0.5
    found.secure("no traffic reaches it", "", held=True, seconds=1.5)
    assert report(found, "toy", seed=0, stated=60).verdict is Verdict.PASS


def test_stolen_keys_are_of_no_use_once_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = signed_run(tmp_path / "run")
    (tmp_path / "run" / "keys").rename(tmp_path / "keys")
    monkeypatch.setattr(signed, "_zero", lambda path: (path.parent / "made.txt").write_text("forged"))
    found = board(*range(99))
    forge(GameDaySetup(tmp_path, 0), made.folder, found)
    assert [(one.what, one.found) for one in found.findings if not one.held] == []
    assert report(found, "key-compromise", seed=0, stated=99).verdict is Verdict.PASS


def test_the_command_lists_plays_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def played(setup: GameDaySetup, found: Scoreboard) -> None:
        found.begin()
        found.detect("a <b>thief</b> is seen", "yes", held=True)
        found.secure("clients are safe", "yes", held=setup.seed == 1)

    monkeypatch.setattr(exercises, "EXERCISES", {"toy": GameDayExercise("a toy", 60, played)})
    run = lambda *words: CliRunner().invoke(app, ["gameday", *map(str, words)])  # noqa: E731
    assert run("--list").stdout.startswith("toy ")
    assert run("toy", "--seed", 1, "--out", tmp_path / "good").exit_code == 0
    assert run("toy", "--seed", 2, "--out", tmp_path / "bad").exit_code == 3
    assert run("tyo").exit_code == 2
    assert load(tmp_path / "bad", GameDayReport).document.verdict is Verdict.FAIL
    assert "<b>thief" not in (tmp_path / "good" / "report.html").read_text()
    assert set(EXERCISES) == {"poisoned-vendor", "regression", "key-compromise"}
