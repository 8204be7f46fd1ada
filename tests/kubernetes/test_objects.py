"""Parts of objects: pointers, annotations, and what a server adds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.kubernetes.objects import annotate, condition, holds, moment, pointer, rfc3339


def marked(**annotations):
    return {"metadata": {"name": "a", "annotations": annotations}}


def test_pointers_escape_and_annotations_come_in_whole():
    assert pointer("metadata", "annotations", "a/b~c", 0) == "/metadata/annotations/a~1b~0c/0"
    bare = {"metadata": {"name": "a"}}
    assert annotate(bare, {"x": "1", "y": None}) == [
        {"op": "add", "path": "/metadata/annotations", "value": {"x": "1"}}
    ]
    assert annotate(marked(x="1"), {"x": "1"}) == []
    assert annotate(marked(x="1"), {"x": None}) == [{"op": "remove", "path": "/metadata/annotations/x"}]


def test_an_object_holds_what_was_asked_for_when_the_server_added_defaults():
    assert holds({"a": 1, "b": [{"c": 2, "d": 3}]}, {"b": [{"c": 2}]})
    assert not holds({"a": 1}, {"a": 2})
    assert not holds({"a": [1]}, {"a": [1, 2]})
    assert not holds({}, {"a": None})


def test_a_condition_is_the_first_that_the_status_has():
    states = {"Ready": "True", "RouteReady": "False", "Odd": "Unknown"}
    found = {"status": {"conditions": [{"type": name, "status": state} for name, state in states.items()]}}
    assert condition(found, "Ready")
    assert condition(found, "ModelReady", "Ready")
    assert not condition(found, "RouteReady", "Ready")
    assert not condition(found, "Odd")
    assert not condition(found, "ModelReady")
    assert not condition({"status": None}, "Ready")


@given(st.integers(0, 4_000_000_000))
def test_moments_come_back(seconds):
    assert moment(rfc3339(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2026-01-01", "2026-01-01T00:00:00", "{}"])
def test_what_is_no_moment_has_no_time(text):
    assert moment(text) is None
