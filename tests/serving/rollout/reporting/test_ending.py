"""The last line on the terminal."""

import pytest

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.folder import save
from holdfast.serving.rollout.reporting.ending import PLANTED, last_line

AGAIN = "holdfast rollout start --name tiny --version 2 --out rollout"


@pytest.fixture
def line(record, tmp_path):
    """What is said about a record with other values, and where the record lies."""

    def of(planted: bool = False, **more) -> str:
        folder = tmp_path / "rollout"
        return last_line(save(folder, record.model_copy(update=more)), AGAIN, planted=planted)

    return of


def test_a_model_at_fault_is_not_told_to_be_started_again(line, tmp_path):
    said = line(cause=Cause.MODEL)
    assert "tiny version 2: rolled-back: too slow (cause: the model's own fault)." in said
    assert "Train or repair the model" in said
    assert AGAIN not in said
    assert str(tmp_path / "rollout" / "incident.md") in said


@pytest.mark.parametrize("cause", sorted(set(Cause) - {Cause.MODEL, Cause.NONE}))
def test_any_other_cause_is_told_with_its_advice_and_the_command(line, cause):
    said = line(cause=cause, outcome="inconclusive")
    assert f"inconclusive: too slow (cause: {cause.words})." in said
    assert f"{cause.advice} The command: {AGAIN}" in said


def test_a_planted_fault_asks_for_nothing(line):
    said = line(planted=True, cause=Cause.MODEL)
    assert PLANTED in said
    assert "Train or repair" not in said


def test_a_promotion_says_who_serves(line):
    assert "promoted: too slow. It serves all traffic" in line(outcome="promoted", cause=Cause.NONE)


def test_it_is_one_line_whatever_the_reason(line):
    assert "\n" not in line(cause=Cause.EVIDENCE, outcome="inconclusive", reason="nothing seen:\nrefused\n")
