"""Which version served when, from notes."""

from holdfast.registry.history import ChampionPeriod, as_dict, served, text
from holdfast.registry.notes import Note


def note(version, outcome, began, before, **more) -> Note:
    return Note(version, outcome, f"it was {outcome}", began, began + 60, before, "a" * 64, "d" * 64, **more)


NOTES = (
    note(1, "promoted", 1000.0, None),
    note(2, "promoted", 2000.0, 1),
    note(3, "rolled-back", 3000.0, 2),
    note(1, "promoted", 4000.0, 2),
)


def test_each_champion_serves_until_the_next_promotion():
    expected = (ChampionPeriod(1, 1060.0, 2060.0), ChampionPeriod(2, 2060.0, 4060.0), ChampionPeriod(1, 4060.0, None))
    assert served(NOTES, 1) == expected


def test_the_champion_before_the_first_note_has_served_since_nobody_knows_when():
    assert served(NOTES[1:2], 2) == (ChampionPeriod(1, None, 2060.0), ChampionPeriod(2, 2060.0, None))


def test_without_notes_the_champion_serves_and_nothing_else_is_known():
    assert served((), 7) == (ChampionPeriod(7, None, None),)
    assert served((), None) == ()


def test_an_alias_that_was_moved_by_hand_is_not_hidden():
    assert served(NOTES[:1], 9)[-1] == ChampionPeriod(9, None, None)


def test_people_read_when_who_and_why():
    screen = text("tiny", NOTES, 1)
    assert "1970-01-01 00:17:40Z" in screen  # 1060 s after the epoch
    assert "1 -> 2" in screen
    assert "it was rolled-back" in screen
    assert text("tiny", (), None) == "tiny: no champion, and no rollout was noted"


def test_json_has_every_rollout_with_both_digests():
    found = as_dict(NOTES, 1)
    assert [one["champion_after"] for one in found["rollouts"]] == [1, 2, 2, 1]
    assert {len(one[key]) for one in found["rollouts"] for key in ("model", "decision")} == {64}
