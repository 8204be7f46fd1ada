"""The pipeline as a drawing: each step with its verdict, its duration, and whether its artifact was reused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from holdfast.rendering.numbers import seconds
from holdfast.rendering.svg import path, picture, rect, tag, text
from holdfast.steps import columns, names

Columns = tuple[tuple[str, ...], ...]
"""The steps, those that run at the same time together; each needs all of the column before it."""

NodeState = Literal["pass", "inconclusive", "fail", "idle"]


@dataclass(frozen=True)
class Node:
    """What one step shows; idle means that it was not carried out."""

    state: NodeState
    seconds: float = 0.0
    """0: not known."""
    reused: bool = False
    judges: bool = True
    """Whether the step's document has a verdict of its own."""

    @property
    def word(self) -> str:
        """The second line of the step."""
        if self.state == "idle":
            return "not run"
        word = self.state if self.judges else "done"
        if not self.seconds and not self.reused:
            return word
        return f"{word}, reused" if self.reused else f"{word}, {seconds(self.seconds)}"


def draw(nodes: Mapping[str, Node], *, upright: bool = False) -> Markup:
    """The pipeline from left to right, or (`upright`, for narrow screens) from top to bottom."""
    drawn: Columns = tuple(names(column) for column in columns(nodes))
    size, box = _size(drawn, upright), (116.0 if upright else 106.0, 46.0)
    places = _places(drawn, upright)
    edges = [
        _edge(places[before], places[after], box, nodes.get(after, Node("idle")), upright)
        for left, right in zip(drawn, drawn[1:], strict=False)
        for before in left
        for after in right
    ]
    boxes = [_box(name, nodes.get(name, Node("idle")), place, box) for name, place in places.items()]
    told = ", ".join(f"{name} {nodes.get(name, Node('idle')).word}" for name in places)
    return picture(*edges, *boxes, title="The pipeline's steps", desc=told, size=size)


def _size(drawn: Columns, upright: bool) -> tuple[float, float]:
    widest = max(map(len, drawn))
    if upright:
        return 128.0 * widest - 10, 64.0 * len(drawn) - 16
    return 124.6 * len(drawn) - 15.4, 72.0 * widest - 24


def _places(drawn: Columns, upright: bool) -> dict[str, tuple[float, float]]:
    """The upper left corner of each step's box."""
    widest = max(map(len, drawn))
    if upright:
        return {
            name: (64.0 * widest - 5 - 58 + 128 * (row - (len(steps) - 1) / 2), 1 + 64.0 * column)
            for column, steps in enumerate(drawn)
            for row, name in enumerate(steps)
        }
    return {
        name: (1 + 124.6 * column, 36.0 * widest - 35 + 72 * (row - (len(steps) - 1) / 2))
        for column, steps in enumerate(drawn)
        for row, name in enumerate(steps)
    }


def _edge(
    before: tuple[float, float], after: tuple[float, float], box: tuple[float, float], node: Node, upright: bool
) -> Markup:
    name = "edge-idle" if node.state == "idle" else "edge"
    if upright:
        x, y, u, v = before[0] + box[0] / 2, before[1] + box[1], after[0] + box[0] / 2, after[1]
        middle = (y + v) / 2
        return path([(x, y), (x, middle), (u, middle), (u, v)], name)
    x, y, u, v = before[0] + box[0], before[1] + box[1] / 2, after[0], after[1] + box[1] / 2
    middle = (x + u) / 2
    return path([(x, y), (middle, y), (middle, v), (u, v)], name)


def _box(name: str, node: Node, place: tuple[float, float], box: tuple[float, float]) -> Markup:
    x, y = place
    return tag(
        "g",
        tag("title", f"{name}: {node.word}"),
        rect(place, box, f"node node-{node.state}"),
        _sign(node.state, x + 14, y + 16),
        text(name, x + 25, y + 20, "node-name"),
        text(node.word, x + 9, y + 37, "node-word"),
        class_="step",
    )


def _sign(state: NodeState, x: float, y: float) -> Markup:
    """A shape per state, so that the colour is not needed: disc, triangle, square, ring."""
    if state == "pass":
        return tag("circle", cx=x, cy=y, r=5, class_="sign-pass")
    if state == "inconclusive":
        return path([(x - 5.5, y + 4.5), (x + 5.5, y + 4.5), (x, y - 5.5)], "sign-inconclusive", closed=True)
    if state == "fail":
        return rect((x - 5, y - 5), (10, 10), "sign-fail")
    return tag("circle", cx=x, cy=y, r=4.5, class_="sign-idle")
