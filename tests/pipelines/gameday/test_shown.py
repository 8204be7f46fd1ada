"""What a person reads of a finding."""

import pytest

from holdfast.artifacts.documents import GameDayFinding, GameDayReport, Verdict
from holdfast.cli.gamedays import shown
from holdfast_pipelines.gameday.score import Scoreboard, page, report


@pytest.mark.parametrize(
    ("seconds", "line"), [(1.25, "held          1.2 s  back: yes"), (None, "held                 back: yes")]
)
def test_a_finding_without_a_time_is_a_line_too(seconds: float | None, line: str) -> None:
    assert shown(GameDayFinding(what="back", found="yes", seconds=seconds, held=True)) == line


def test_a_page_of_what_was_read_from_a_record() -> None:
    board = Scoreboard(detected=0.7)
    board.expect("no request failed", "0 of 9", held=True)
    board.secure("no live traffic", "after 0.7 s", held=True, seconds=0.7)
    found: GameDayReport = report(board, "regression", seed=0, stated=60)
    assert (found.verdict, found.safe, found.findings[0].seconds) == (Verdict.PASS, 0.7, None)
    assert "no request failed" in page(found)
