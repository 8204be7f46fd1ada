"""The small parts under every page: elements, charts, numbers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.rendering.charts import Axis, Bar, Chart, DataSeries, Mark, bar_chart, line_chart, share_axis
from holdfast.rendering.numbers import clip, percent, seconds, ticks
from holdfast.rendering.svg import tag


def test_attributes_and_texts_are_escaped() -> None:
    assert tag("text", "a<b", x=1.0, class_='"x') == '<text x="1" class="&#34;x">a&lt;b</text>'


@given(low=st.floats(-1e3, 1e3), width=st.floats(1e-2, 1e6))
def test_ticks_are_even_and_inside(low: float, width: float) -> None:
    found = ticks(low, low + width)
    steps = [after - before for before, after in pairwise(found)]
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in found)
    assert 1 <= len(found) <= 12
    assert all(step == pytest.approx(steps[0], rel=1e-3) for step in steps)


@pytest.mark.parametrize(
    ("share", "words"), [(0.0, "0 %"), (1.0, "100 %"), (0.8243, "82.4 %"), (0.0001, "< 0.1 %"), (0.99999, "> 99.9 %")]
)
def test_only_a_true_zero_reads_zero(share: float, words: str) -> None:
    assert percent(share) == words


def test_durations_and_labels_read_well() -> None:
    assert [seconds(0.31), seconds(75.2)] == ["0.3 s", "1 min 15 s"]
    assert clip("measurement", 6) == "measu…"


def test_a_point_lies_where_its_axis_says() -> None:
    assert share_axis("accuracy").place(0.25) == 0.25
    assert Axis("e", 0.01, 100, log=True).place(1.0) == pytest.approx(0.5)
    assert Axis("e", 0.01, 100, log=True).place(1e300) == 1.0


def test_a_chart_tells_its_points_to_those_who_cannot_see_it() -> None:
    line = DataSeries(
        "accuracy", ((0, 0.9), (1, 0.4)), band=((0.8, 0.95), (0.3, 0.5)), tips=("at 0: 90 %", "at 1: 40 %")
    )
    chart = Chart("Accuracy", "falls", Axis("epsilon", 0, 1), share_axis("accuracy"), (line,), (Mark(1, "chosen"),))
    drawn = line_chart(chart)
    assert "<title>Accuracy</title><desc>falls</desc>" in drawn
    assert "<title>at 1: 40 %</title>" in drawn
    assert "chosen" in drawn


def test_the_longest_bar_fits_and_no_bar_is_negative() -> None:
    drawn = bar_chart("Effects", "three", [Bar("a", 2.0, "a: 2"), Bar("b", 0.0, "b: 0"), Bar("c" * 50, 1.0, "c: 1")])
    assert "-" not in "".join(part for part in drawn.split('width="')[1:])[:4]
    assert "c" * 30 not in drawn


def test_points_without_a_line_have_their_words_next_to_them() -> None:
    axis, points = share_axis("share"), ((0.2, 0.4), (0.9, 0.5))
    alone = DataSeries("runs", points, line=False, words=("1", "2"))
    drawn = str(line_chart(Chart("t", "d", axis, axis, (alone,))))
    assert drawn.count("<circle") == 3  # two points and the legend's sample
    assert "curve-a" not in drawn
    assert 'class="label" text-anchor="start">1</text>' in drawn
    assert "curve-a" in str(line_chart(Chart("t", "d", axis, axis, (DataSeries("runs", points),))))
