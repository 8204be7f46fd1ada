"""What the report of a run draws by itself: pictures of examples, and the pipeline."""

import io
from xml.etree import ElementTree

import numpy as np
import pytest

from holdfast.steps import names
from holdfast_pipelines.report.dag import Node, draw
from holdfast_pipelines.report.pictures import png


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (5, 7, 3)])
def test_another_library_reads_the_pictures_as_they_were(shape: tuple[int, ...]) -> None:
    image = pytest.importorskip("PIL.Image")
    levels = np.random.default_rng(0).integers(0, 256, shape)
    assert np.array_equal(np.asarray(image.open(io.BytesIO(png(levels / 255)))), levels)


def test_pixels_outside_the_range_are_clipped() -> None:
    image = pytest.importorskip("PIL.Image")
    found = np.asarray(image.open(io.BytesIO(png(np.array([[-3.0, np.nan, 7.0]])))))
    assert found.tolist() == [[0, 0, 255]]


@pytest.mark.parametrize("upright", [False, True])
def test_every_step_is_inside_the_drawing(upright: bool) -> None:
    root = ElementTree.fromstring(draw({}, upright=upright))
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    boxes = [box.attrib for box in root.iter() if box.attrib.get("class", "").startswith("node ")]
    assert len(boxes) == len(names())
    for box in boxes:
        x, y, w, h = (float(box[key]) for key in ("x", "y", "width", "height"))
        assert x >= 0 <= y
        assert x + w <= width
        assert y + h <= height


def test_the_pipeline_says_every_step_in_words() -> None:
    drawn = draw(
        {"snapshot": Node("pass", 1.2, judges=False), "schema": Node("fail", 75.0), "drift": Node("pass", reused=True)}
    )
    assert "snapshot done, 1.2 s" in drawn
    assert "schema fail, 1 min 15 s" in drawn
    assert "drift pass, reused" in drawn
    assert "rollout not run" in drawn
