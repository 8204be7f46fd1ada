"""Charts as inline SVG: values in, drawing out. Colours come from the page's style sheet (light, dark, print).

Two tones tell two things apart and never by colour alone: tone "a" is drawn solid with round marks, tone "b" dashed
with square marks, "c" dotted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

from holdfast.rendering.numbers import clip, number, percent, ticks
from holdfast.rendering.svg import line, path, picture, rect, tag, text

Tone = Literal["a", "b", "c"]
Shower = Callable[[float], str]

_CHAR = 6.2
"""Width of an average character of the charts' 11 px text."""
_BOLD = 7.4
"""The same for the 12 px bold text of names."""


@dataclass(frozen=True)
class DataSeries:
    """One line: points (x, y), with the interval of each y where there is one, and what to say about each point."""

    name: str
    points: tuple[tuple[float, float], ...]
    tone: Tone = "a"
    band: tuple[tuple[float, float], ...] = ()
    """(low, high) per point."""
    tips: tuple[str, ...] = ()
    marks: bool = True
    step: bool = False
    """Hold each value until the next point."""
    line: bool = True
    """False: points alone."""
    words: tuple[str, ...] = ()
    """What is written next to each point."""


@dataclass(frozen=True)
class Axis:
    """What an axis measures, and its ends."""

    label: str
    low: float
    high: float
    show: Shower = number
    log: bool = False
    at: tuple[float, ...] = ()
    """Where the ticks are; round values when left out."""
    about: int = 5
    """How many round values."""

    def place(self, value: float) -> float:
        """Where `value` lies between the ends: 0 at low, 1 at high, clipped."""
        low, high, value = (self._scale(v) for v in (self.low, self.high, value))
        return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.0

    def ticks(self) -> tuple[float, ...]:
        """Where to write a value."""
        if self.at:
            return self.at
        if self.log:
            low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            every = max(1, (high - low) // 4)
            return tuple(10.0**power for power in range(low, high + 1, every) if self.low <= 10.0**power <= self.high)
        return tuple(ticks(self.low, self.high, self.about))

    def _scale(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value


def share_axis(label: str, high: float = 1.0, about: int = 5) -> Axis:
    """A vertical axis for shares from 0, shown in percent."""
    at = (0.0, 0.25, 0.5, 0.75, 1.0) if high == 1.0 else ()
    return Axis(label, 0.0, high, show=_tick_percent, at=at, about=about)


@dataclass(frozen=True)
class Mark:
    """A vertical line at x with a word: a chosen epoch, a rollback."""

    x: float
    word: str
    loud: bool = False


@dataclass(frozen=True)
class Frame:
    """The rectangle in which values are drawn."""

    x: Axis
    y: Axis
    left: float
    top: float
    width: float
    height: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a value on the drawing."""
        return self.left + self.x.place(x) * self.width, self.top + (1 - self.y.place(y)) * self.height

    @property
    def bottom(self) -> float:
        """The y of the horizontal axis."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """The x of the right end."""
        return self.left + self.width


@dataclass(frozen=True)
class Chart:
    """What a line chart shows."""

    title: str
    desc: str
    x: Axis
    y: Axis
    series: tuple[DataSeries, ...]
    marks: tuple[Mark, ...] = ()
    levels: tuple[tuple[float, str], ...] = ()
    """Horizontal lines with a word: a threshold."""
    size: tuple[float, float] = (440, 250)


def line_chart(chart: Chart) -> Markup:
    """Lines with bands, marks and thresholds over two axes."""
    width, height = chart.size
    frame = Frame(chart.x, chart.y, 44, 30, width - 68, height - 74)
    return picture(
        *_legend(chart.series, 44, 12),
        *_axes(frame),
        *_x_labels(frame),
        *_inside(frame, chart),
        title=chart.title,
        desc=chart.desc,
        size=chart.size,
    )


@dataclass(frozen=True)
class Bar:
    """One horizontal bar."""

    label: str
    value: float
    tip: str
    loud: bool = False
    note: str = ""


def bar_chart(title: str, desc: str, bars: Sequence[Bar], *, full: float = 0.0) -> Markup:
    """Horizontal bars from 0 with their values; the longest possible one is at least `full`."""
    width, row, left = 440.0, 20.0, 24 + _CHAR * min(max((len(bar.label) for bar in bars), default=0), 22)
    most = max([bar.value for bar in bars if math.isfinite(bar.value)] + [full, 1e-12])
    room = width - left - 16 - _CHAR * max((len(number(bar.value) + bar.note) + 2 for bar in bars), default=4)
    drawn = [_bar(bar, index * row + 4, left, room * bar.value / most) for index, bar in enumerate(bars)]
    base = line((left, 0), (left, len(bars) * row + 6), "axis")
    return picture(*drawn, base, title=title, desc=desc, size=(width, len(bars) * row + 8))


def _bar(bar: Bar, y: float, left: float, length: float) -> Markup:
    value = number(bar.value) + (f"  {bar.note}" if bar.note else "")
    return tag(
        "g",
        text(clip(bar.label, 22), left - 8, y + 12, "label", "end"),
        rect((left, y + 1), (max(length, 1.0), 13), "bar-loud" if bar.loud else "bar-a", bar.tip),
        text(value, left + length + 6, y + 12, "value-loud" if bar.loud else "value"),
    )


def column_chart(title: str, desc: str, labels: Sequence[str], groups: Sequence[DataSeries]) -> Markup:
    """Columns side by side for each label; each group's points are (index of the label, share)."""
    size = (440.0, 192.0)
    high = max([y for group in groups for _, y in group.points] + [1e-9]) * 1.12
    frame = Frame(Axis("", 0, max(len(labels), 1)), share_axis("share of rows", high), 44, 30, size[0] - 58, 140)
    slot = frame.width / max(len(labels), 1)
    columns = [_column(frame, slot, (g, len(groups)), group) for g, group in enumerate(groups)]
    every = max(1, math.ceil(len(labels) / 16))
    room = max(3, int(slot * every / _CHAR) - 1)
    names = [
        text(clip(label, room), frame.left + (index + 0.5) * slot, frame.bottom + 15, "label", "middle")
        for index, label in enumerate(labels)
        if index % every == 0
    ]
    return picture(
        *_legend(groups, 44, 12, boxes=True), *_axes(frame), *columns, *names, title=title, desc=desc, size=size
    )


def _column(frame: Frame, slot: float, place: tuple[int, int], group: DataSeries) -> Markup:
    index, of = place
    wide = min(slot * 0.76 / of, 34.0)
    start = (slot - wide * of) / 2 + index * wide
    tips = group.tips or ("",) * len(group.points)
    bars = [
        rect(
            (frame.left + x * slot + start, frame.at(0, y)[1]),
            (wide - 1, frame.bottom - frame.at(0, y)[1]),
            _box(group.tone),
            tip,
        )
        for (x, y), tip in zip(group.points, tips, strict=True)
    ]
    return tag("g", *bars)


@dataclass(frozen=True)
class HistogramPair:
    """The distribution of one column, twice."""

    title: str
    reference: tuple[float, ...]
    """Counts per bin or category."""
    current: tuple[float, ...]
    edges: tuple[float, ...] = ()
    """Bin edges, one more than counts; without them the column has categories."""
    categories: tuple[str, ...] = ()
    loud: bool = False


def histogram_pair(pair: HistogramPair) -> Markup:
    """Reference filled, current as an outline, both as shares of their rows."""
    size = (230.0, 122.0)
    reference, current = _shares(pair.reference), _shares(pair.current)
    high = max([*reference, *current, 1e-9]) * 1.05
    edges = pair.edges or tuple(float(index) for index in range(len(reference) + 1))
    frame = Frame(Axis("", edges[0], edges[-1]), Axis("", 0, high), 6, 22, size[0] - 12, 78)
    ends = _ends(pair, frame)
    return picture(
        text(clip(pair.title, 26), 6, 13, "name-loud" if pair.loud else "name"),
        path(_outline(frame, edges, reference), "area-a", closed=True),
        path(_outline(frame, edges, current), "curve-b"),
        line((frame.left, frame.bottom), (frame.right, frame.bottom), "axis"),
        *ends,
        title=f"{pair.title}: reference and current",
        desc=f"{len(reference)} bins; drifted" if pair.loud else f"{len(reference)} bins; not drifted",
        size=size,
    )


def _ends(pair: HistogramPair, frame: Frame) -> list[Markup]:
    if pair.edges:
        low, high = number(pair.edges[0]), number(pair.edges[-1])
    elif pair.categories:
        low, high = clip(pair.categories[0], 14), clip(pair.categories[-1], 14)
    else:
        return []
    y = frame.bottom + 14
    return [text(low, frame.left, y), text(high, frame.right, y, anchor="end")]


def _outline(frame: Frame, edges: Sequence[float], shares: Sequence[float]) -> list[tuple[float, float]]:
    points = [frame.at(edges[0], 0)]
    for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True):
        points += [frame.at(low, share), frame.at(high, share)]
    return [*points, frame.at(edges[-1], 0)]


def _shares(counts: Sequence[float]) -> tuple[float, ...]:
    total = sum(counts) or 1.0
    return tuple(count / total for count in counts)


@dataclass(frozen=True)
class Panel:
    """One row of a stacked chart: what it measures on which axis, and its lines."""

    y: Axis
    series: tuple[DataSeries, ...]
    levels: tuple[tuple[float, str], ...] = ()
    height: float = 110
    area: bool = False


@dataclass(frozen=True)
class Stack:
    """Panels over the same time axis, with the states behind them and the moment that matters."""

    title: str
    desc: str
    x: Axis
    panels: tuple[Panel, ...]
    spans: tuple[tuple[float, float, str], ...] = ()
    """(from, to, word) of each state."""
    mark: Mark | None = None
    width: float = 940
    gap: float = field(default=34)


def stacked_chart(stack: Stack) -> Markup:
    """Panels one below the other over one time axis."""
    frames, top = [], 64.0
    for panel in stack.panels:
        frames.append(Frame(stack.x, panel.y, 52, top, stack.width - 66, panel.height))
        top += panel.height + stack.gap
    parts = [*_spans(stack, frames)]
    for panel, frame in zip(stack.panels, frames, strict=True):
        parts += _panel(panel, frame)
    if stack.mark:
        parts += _mark(stack.mark, frames[0], frames[-1].bottom)
    parts += _x_labels(frames[-1])
    return picture(*parts, title=stack.title, desc=stack.desc, size=(stack.width, top + 10))


def _panel(panel: Panel, frame: Frame) -> list[Markup]:
    chart = Chart("", "", frame.x, frame.y, panel.series, levels=panel.levels)
    title = text(panel.y.label, frame.left, frame.top - 8, "name")
    start = frame.left + _BOLD * len(panel.y.label) + 24
    legend = _legend(panel.series, start, frame.top - 8) if len(panel.series) > 1 else []
    areas = [path(_under(frame, series), "area-b", closed=True) for series in panel.series if panel.area]
    return [*_axes(frame, label=False), *areas, *_inside(frame, chart), title, *legend]


def _under(frame: Frame, series: DataSeries) -> list[tuple[float, float]]:
    points = _places(frame, series)
    if not points:
        return []
    return [(points[0][0], frame.bottom), *points, (points[-1][0], frame.bottom)]


def _spans(stack: Stack, frames: Sequence[Frame]) -> list[Markup]:
    first, bottom = frames[0], frames[-1].bottom
    parts = []
    for index, (start, end, word) in enumerate(stack.spans):
        left, right = first.at(start, 0)[0], first.at(end, 0)[0]
        parts.append(rect((left, 26), (right - left, bottom - 26), f"span-{index % 2}", word))
        fits = int((right - left - 6) / _CHAR)
        if fits >= min(len(word), 4):
            parts.append(text(clip(word, fits), left + 4, 39, "label"))
    return parts


def _inside(frame: Frame, chart: Chart) -> list[Markup]:
    parts = [part for level, word in chart.levels for part in _level(frame, level, word)]
    for mark in chart.marks:
        parts += _mark(mark, frame, frame.bottom)
    for series in chart.series:
        parts += _curve(frame, series)
    return parts


def _curve(frame: Frame, series: DataSeries) -> list[Markup]:
    places = _places(frame, series)
    parts = []
    if series.band:
        low = [frame.at(x, band[0]) for (x, _), band in zip(series.points, series.band, strict=True)]
        high = [frame.at(x, band[1]) for (x, _), band in zip(series.points, series.band, strict=True)]
        parts.append(path([*low, *reversed(high)], f"band-{series.tone}", closed=True))
    if len(places) > 1 and series.line:
        parts.append(path(places, f"curve-{series.tone}"))
    if series.marks:
        tips = series.tips or ("",) * len(series.points)
        parts += [_dot(frame.at(x, y), series.tone, tip) for (x, y), tip in zip(series.points, tips, strict=True)]
    for (x, y), word in zip(places, series.words, strict=False):
        near_end = x > frame.right - _CHAR * len(word) - 12
        base = y - 5 if series.tone == "a" else y + 13
        parts.append(text(word, x - 7 if near_end else x + 7, base, "label", "end" if near_end else "start"))
    return parts


def _places(frame: Frame, series: DataSeries) -> list[tuple[float, float]]:
    places = [frame.at(x, y) for x, y in series.points]
    if not series.step:
        return places
    held = [(after[0], before[1]) for before, after in zip(places, places[1:], strict=False)]
    return [point for pair in zip(places, [*held, places[-1]], strict=True) for point in pair] if places else []


def _dot(place: tuple[float, float], tone: Tone, tip: str) -> Markup:
    children = [tag("title", tip)] if tip else []
    x, y = place
    if tone == "a":
        return tag("circle", *children, cx=x, cy=y, r=3.2, class_="dot-a")
    return tag("rect", *children, x=x - 2.9, y=y - 2.9, width=5.8, height=5.8, class_=f"dot-{tone}")


def _mark(mark: Mark, frame: Frame, bottom: float) -> list[Markup]:
    x = frame.at(mark.x, frame.y.low)[0]
    name = "loud" if mark.loud else "quiet"
    near_end = x > frame.right - _CHAR * len(mark.word) - 12
    base = 18 if mark.loud else frame.bottom - 7
    word = text(
        mark.word,
        x - 6 if near_end else x + 6,
        base,
        f"mark-{name}",
        "end" if near_end else "start",
    )
    return [line((x, 6 if mark.loud else frame.top), (x, bottom), f"line-{name}"), word]


def _level(frame: Frame, level: float, word: str) -> list[Markup]:
    y = frame.at(frame.x.low, level)[1]
    return [
        line((frame.left, y), (frame.right, y), "line-level"),
        text(word, frame.right - 4, y - 4, "mark-level", "end"),
    ]


def _axes(frame: Frame, *, label: bool = True) -> list[Markup]:
    parts = []
    for value in frame.y.ticks():
        y = frame.at(frame.x.low, value)[1]
        parts.append(line((frame.left, y), (frame.right, y), "grid"))
        parts.append(text(frame.y.show(value), frame.left - 7, y + 4, anchor="end"))
    parts.append(line((frame.left, frame.bottom), (frame.right, frame.bottom), "axis"))
    return parts


def _x_labels(frame: Frame) -> list[Markup]:
    parts = []
    for value in frame.x.ticks():
        x = frame.at(value, frame.y.low)[0]
        parts.append(line((x, frame.bottom), (x, frame.bottom + 4), "axis"))
        parts.append(text(frame.x.show(value), x, frame.bottom + 17, anchor="middle"))
    middle = frame.left + frame.width / 2
    return [*parts, text(frame.x.label, middle, frame.bottom + 36, "label", "middle")]


def _legend(series: Sequence[DataSeries], left: float, y: float, *, boxes: bool = False) -> list[Markup]:
    parts: list[Markup] = []
    for one in series:
        parts += [rect((left, y - 9), (12, 10), _box(one.tone))] if boxes else _sample(one, left, y - 4)
        start = left + (17 if boxes else 27)
        parts.append(text(one.name, start, y, "label"))
        left = start + _CHAR * len(one.name) + 18
    return parts


def _sample(series: DataSeries, left: float, y: float) -> list[Markup]:
    parts = [path([(left, y), (left + 22, y)], f"curve-{series.tone}")] if series.line else []
    return [*parts, _dot((left + 11, y), series.tone, "")] if series.marks else parts


def _box(tone: Tone) -> str:
    return f"bar-{tone}"


def _tick_percent(share: float) -> str:
    return percent(share) if share in (0.0, 1.0) else f"{number(round(100 * share, 6))} %"
