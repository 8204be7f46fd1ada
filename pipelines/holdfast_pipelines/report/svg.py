"""A very small writer of SVG and PNG: everything that goes in is escaped, nothing refers to anything outside."""

import base64
import struct
import zlib
from collections.abc import Iterable

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

Points = Iterable[tuple[float, float]]

_PNG_GREY, _PNG_RGB = 0, 2


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


def path(points: Points, class_: str, *, closed: bool = False) -> Markup:
    """Straight segments through `points`."""
    steps = [f"{'L' if index else 'M'}{_number(x)} {_number(y)}" for index, (x, y) in enumerate(points)]
    return tag("path", d="".join(steps) + ("Z" if closed else ""), class_=class_)


def picture(*children: str, title: str, desc: str, size: tuple[float, float]) -> Markup:
    """A whole drawing with the name and the description that a screen reader tells."""
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


def png_uri(pixels: NDArray[np.float64]) -> str:
    """A data URI of float64[H, W] (grey) or float64[H, W, 3] in [0, 1]; values outside are clipped."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def png(pixels: NDArray[np.float64]) -> bytes:
    """The bytes of a PNG file (RFC 2083) of float64[H, W] or float64[H, W, 3] in [0, 1]."""
    levels = np.rint(np.clip(np.nan_to_num(pixels), 0, 1) * 255).astype(np.uint8)
    height, width = levels.shape[:2]
    colour = _PNG_RGB if levels.ndim == 3 else _PNG_GREY
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
