"""The small parts under the page: pictures, charts, numbers."""

import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_pipelines.report.dag import Node, draw
from holdfast_pipelines.report.numbers import clip, percent, seconds, ticks
from holdfast_pipelines.report.plots import Axis, Bar, Chart, Mark, Series, bar_chart, line_chart, share_axis
from holdfast_pipelines.report.svg import png, tag


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (5, 7, 3)])
def test_another_library_reads_the_pictures_as_they_were(shape: tuple[int, ...]) -> None:
    image = pytest.importorskip("PIL.Image")
    levels = np.random.default_rng(0).integers(0, 256, shape)
    assert np.array_equal(np.asarray(image.open(io.BytesIO(png(levels / 255)))), levels)


def test_pixels_outside_the_range_are_clipped() -> None:
    image = pytest.importorskip("PIL.Image")
    found = np.asarray(image.open(io.BytesIO(png(np.array([[-3.0, np.nan, 7.0]])))))
    assert found.tolist() == [[0, 0, 255]]


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
    line = Series("accuracy", ((0, 0.9), (1, 0.4)), band=((0.8, 0.95), (0.3, 0.5)), tips=("at 0: 90 %", "at 1: 40 %"))
    chart = Chart("Accuracy", "falls", Axis("epsilon", 0, 1), share_axis("accuracy"), (line,), (Mark(1, "chosen"),))
    drawn = line_chart(chart)
    assert "<title>Accuracy</title><desc>falls</desc>" in drawn
    assert "<title>at 1: 40 %</title>" in drawn
    assert "chosen" in drawn


def test_the_longest_bar_fits_and_no_bar_is_negative() -> None:
    drawn = bar_chart("Effects", "three", [Bar("a", 2.0, "a: 2"), Bar("b", 0.0, "b: 0"), Bar("c" * 50, 1.0, "c: 1")])
    assert "-" not in "".join(part for part in drawn.split('width="')[1:])[:4]
    assert "c" * 30 not in drawn


def test_the_pipeline_says_every_step_in_words() -> None:
    drawn = draw(
        {"snapshot": Node("pass", 1.2, judges=False), "schema": Node("fail", 75.0), "drift": Node("pass", reused=True)}
    )
    assert "snapshot done, 1.2 s" in drawn
    assert "schema fail, 1 min 15 s" in drawn
    assert "drift pass, reused" in drawn
    assert "rollout not run" in drawn
