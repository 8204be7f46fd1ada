"""Text for terminals."""

import pytest

from holdfast.rendering.text import clock, columns, duration, paragraphs


def test_columns_are_as_wide_as_their_widest_cell_but_for_the_last() -> None:
    assert columns((("a", "bb", "long words"), ("aaa", "b", "x"))) == ["a    bb  long words", "aaa  b   x"]


def test_a_short_row_widens_no_column_with_its_last_cell() -> None:
    assert columns((("a", "b", "c"), ("a whole sentence",))) == ["a  b  c", "a whole sentence"]


def test_paragraphs_leave_out_what_is_empty() -> None:
    assert paragraphs((("title",),), (), (("a", "b"),)) == "title\n\na  b"


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1.0, "0.0 s"), (9.94, "9.9 s"), (119, "119 s"), (120, "2 min"), (7200, "2.0 h")]
)
def test_durations_are_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_moment_is_utc() -> None:
    assert clock(0.0) == "1970-01-01 00:00:00Z"
