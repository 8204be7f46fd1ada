import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.artifacts.cause import Cause
from holdfast.registry.notes import MAX_VALUE, Note, as_json, notes_of, parse, rolled_back

NOTE = Note(
    version=3,
    outcome="rolled-back",
    reason="too slow",
    began=1_700_000_000.123,
    ended=1_700_000_060.5,
    champion_before=2,
    model="a" * 64,
    decision="d" * 64,
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=6000)


def test_a_note_is_a_tag_of_its_version_and_comes_back():
    assert NOTE.key == "holdfast.rollout.1700000000123"
    assert notes_of(3, {NOTE.key: NOTE.value, "holdfast.verdict": "pass"}) == [NOTE]
    assert parse(as_json(NOTE)) == NOTE


@given(reason=TEXT, day=st.none() | TEXT)
def test_whatever_the_reason_a_note_fits_into_mlflow(reason, day):
    note = replace(NOTE, reason=reason, game_day=day)
    assert len(note.value) <= MAX_VALUE
    (found,) = notes_of(3, {note.key: note.value})
    assert note.reason.startswith(found.reason)
    assert found.counts_against_model == note.counts_against_model or day == ""


@pytest.mark.parametrize("value", ["", "{", "[]", "null", "[" * 3000, json.dumps({"outcome": "promoted"})])
def test_a_tag_that_is_none_of_ours_is_left_out(value):
    assert notes_of(3, {NOTE.key: value}) == []


def test_a_note_under_another_rollouts_key_is_left_out():
    assert notes_of(3, {"holdfast.rollout.1": NOTE.value}) == []


def test_a_model_was_rolled_back_only_under_its_decision():
    assert rolled_back([NOTE], NOTE.model, NOTE.decision) == NOTE
    assert rolled_back([NOTE], NOTE.model, "e" * 64) is None
    assert rolled_back([NOTE], "b" * 64, NOTE.decision) is None


def test_the_newest_rollback_is_named():
    later = replace(NOTE, began=NOTE.began + 100, ended=NOTE.ended + 100, version=4)
    assert rolled_back([later, NOTE], NOTE.model, NOTE.decision) == later


@pytest.mark.parametrize("change", [{"outcome": "promoted"}, {"outcome": "inconclusive"}, {"game_day": "wrong=1.0"}])
def test_neither_a_promotion_nor_a_planted_fault_counts_against_the_model(change):
    assert rolled_back([replace(NOTE, **change)], NOTE.model, NOTE.decision) is None


@pytest.mark.parametrize("cause", Cause)
def test_only_the_models_own_fault_locks_its_digest(cause):
    found = rolled_back([replace(NOTE, cause=cause)], NOTE.model, NOTE.decision)
    # A rollback must have a cause; one that says none was written wrongly and counts as the model's fault.
    assert (found is not None) == (cause in (Cause.MODEL, Cause.NONE))


def without_cause(**more) -> str:
    kept = json.loads(NOTE.value)
    del kept["cause"]
    return json.dumps({**kept, **more})


@pytest.mark.parametrize("value", [without_cause(), without_cause(cause="weather"), without_cause(cause=None)])
def test_a_rollback_without_a_known_cause_locks(value):
    (found,) = notes_of(3, {NOTE.key: value})
    assert found.cause is None
    assert rolled_back([found], NOTE.model, NOTE.decision) == found


def test_a_cause_comes_back_with_its_note():
    noted = replace(NOTE, cause=Cause.HOST, outcome="inconclusive")
    assert notes_of(3, {noted.key: noted.value}) == [noted]
    assert parse(as_json(noted)) == noted
