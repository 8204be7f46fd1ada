"""The structured log: a line for what a person would want to be woken by or to read afterwards."""

import json
from datetime import datetime

from holdfast.serving.rollout.engine import machine


def lines(told):
    return [json.loads(line) for line in told.log.file.read_text().splitlines()]


def test_a_transition_is_one_line_with_everything_to_find_it_by(in_canary):
    shadow, canary = lines(in_canary)
    assert (shadow["state"], canary["state"], canary["weight"]) == ("Shadow", "Canary 20 %", 20)
    assert {line["rollout"] for line in (shadow, canary)} == {"tiny-2-1"}
    assert (canary["fence"], canary["event"], canary["before"]) == (3, "transition", "Shadow")
    assert "no test objects" in canary["reason"]
    assert canary["evidence"]["candidate_answered"] == 60
    assert datetime.fromisoformat(canary["time"]).utcoffset().total_seconds() == 0


def test_a_spell_without_counters_is_two_lines_however_long(in_canary):
    before = len(lines(in_canary))
    for _ in range(5):
        in_canary.blind("the site does not answer")
    in_canary.look(candidate=(1, 0))
    begins, ends = lines(in_canary)[before:]
    assert (begins["event"], begins["reason"], ends["event"]) == ("blind", "the site does not answer", "sees")
    assert ends["seconds"] == 5.0


def test_pages_and_retries_are_lines(in_canary):
    before = len(lines(in_canary))
    in_canary.log.keeps("retry", {"attempt": 1, "reason": "no answer", "state": "x"})
    in_canary.everybody.paged(in_canary.rollout, "the candidate cannot be taken out")
    retry, page = lines(in_canary)[before:]
    assert (retry["event"], retry["attempt"], retry["reason"]) == ("retry", 1, "no answer")
    assert (page["event"], page["reason"]) == ("page", "the candidate cannot be taken out")


def test_a_log_that_cannot_be_written_is_said_once(in_canary, capsys):
    in_canary.log.file = in_canary.state / "not-there" / "log.jsonl"
    turned = machine.abort(in_canary.rollout, "enough")
    in_canary.move(turned)
    in_canary.move(machine.confirm(turned))
    assert capsys.readouterr().err.count("the log will miss lines") == 1
