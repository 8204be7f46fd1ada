"""A very small writer of SVG: everything that goes in is escaped, nothing refers to anything outside."""

from collections.abc import Iterable

from markupsafe import Markup, escape


def tag(name: str, *children: str, **attributes: str | float) -> Markup:
    """One element; `class_` becomes class and `stroke_width` stroke-width; text children and values are escaped."""
    pairs = "".join(f' {_attribute(key)}="{_value(value)}"' for key, value in attributes.items())
    inside = Markup("").join(children)
    return Markup(f"<{name}{pairs}>{inside}</{name}>") if children else Markup(f"<{name}{pairs}/>")


def text(content: str, x: float, y: float, class_: str = "tick", anchor: str = "start") -> Markup:
    """A line of text with its base line at y."""
    return tag("text", content, x=x, y=y, class_=class_, text_anchor=anchor)


def line(start: tuple[float, float], end: tuple[float, float], class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def rect(corner: tuple[float, float], size: tuple[float, float], class_: str, tip: str = "") -> Markup:
    """A rectangle; `tip` is what a pointer or a screen reader finds on it."""
    children = [tag("title", tip)] if tip else []
    width, height = max(size[0], 0.0), max(size[1], 0.0)
    return tag("rect", *children, x=corner[0], y=corner[1], width=width, height=height, class_=class_)


def path(points: Iterable[tuple[float, float]], class_: str, *, closed: bool = False) -> Markup:
    """Straight segments through `points`."""
    steps = [f"{'L' if index else 'M'}{_number(x)} {_number(y)}" for index, (x, y) in enumerate(points)]
    return tag("path", d="".join(steps) + ("Z" if closed else ""), class_=class_)


def picture(*children: str, title: str, desc: str, size: tuple[float, float]) -> Markup:
    """A whole drawing with a name and a description for screen readers."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", desc),
        *children,
        viewBox=f"0 0 {_number(size[0])} {_number(size[1])}",
        role="img",
        width=size[0],
        height=size[1],
    )


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
