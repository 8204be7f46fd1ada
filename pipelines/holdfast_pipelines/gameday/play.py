"""Plays an exercise in a folder of its own and writes the report about it."""

import tempfile
from pathlib import Path

from holdfast.artifacts.documents import GameDayReport
from holdfast.artifacts.folder import Artifact, check_place
from holdfast_pipelines.gameday.exercises import GameDaySetup, require_exercise
from holdfast_pipelines.gameday.score import Scoreboard, report, write


def play(name: str, out: Path, *, seed: int) -> Artifact[GameDayReport]:
    """Plays the exercise in a temporary folder, which is removed, and writes the report to `out`.

    Raises:
        RunError: no such exercise, or a step of it failed.
        ArtifactError: `out` holds other files.
    """
    exercise = require_exercise(name)
    check_place(out)
    board = Scoreboard()
    with tempfile.TemporaryDirectory(prefix="holdfast-gameday-") as folder:
        exercise.play(GameDaySetup(Path(folder), seed), board)
    return write(report(board, name, seed=seed, stated=exercise.stated), out)
