"""The journal: on disk before the act, whole after a crash, for one driver alone."""

import pytest

from holdfast.errors import RolloutError
from holdfast.serving.rollout.engine.journal import open_journal, read_journal


def test_lines_are_readable_while_the_journal_is_open(tmp_path):
    with open_journal(tmp_path / "journal.jsonl") as journal:
        journal.write("intent", weight=5)
        assert read_journal(tmp_path / "journal.jsonl")[0]["weight"] == 5


def test_every_driver_gets_a_higher_fence(tmp_path):
    path = tmp_path / "journal.jsonl"
    for expected in (1, 2, 3):
        with open_journal(path) as journal:
            assert journal.fence == expected
            journal.write("started")


@pytest.mark.parametrize("torn", [b'{"fence": 1, "kin', b"\x00\x00", b"x"])
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path, torn):
    path = tmp_path / "journal.jsonl"
    with open_journal(path) as journal:
        journal.write("intent", weight=5)
    path.write_bytes(path.read_bytes() + torn)
    with open_journal(path) as journal:
        assert [entry["kind"] for entry in journal.earlier] == ["intent"]
        journal.write("resume")
    assert [entry["kind"] for entry in read_journal(path)] == ["intent", "resume"]


def test_a_second_driver_is_refused_while_the_first_runs(tmp_path):
    path = tmp_path / "journal.jsonl"
    with (
        open_journal(path),
        pytest.raises(RolloutError, match="cannot start: another rollout is running here"),
        open_journal(path),
    ):
        pass


def test_a_line_in_the_middle_without_meaning_is_an_error(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'nonsense\n{"fence": 1, "kind": "end"}\n')
    with pytest.raises(RolloutError, match=r"journal\.jsonl:1: expected a journal line"):
        read_journal(path)
