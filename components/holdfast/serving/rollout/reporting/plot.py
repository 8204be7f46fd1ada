"""The picture in an incident report: an inline SVG whose colours are the page's, light or dark."""

import html
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.serving.rollout.reporting.timeline import Sample

WIDTH, LEFT, RIGHT = 760, 62, 16
_WINDOWS = 40
"""Rates are taken over about this many windows."""
LEGEND = {"failed": "failed", "slow": "slow", "disagreement": "differing from champion"}
Points = Sequence[tuple[float, float]]
STYLE = (
    "svg{display:block;max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--soft)}"
    "svg .title{fill:var(--ink);font-weight:600}.grid{stroke:var(--line)}.axis{stroke:var(--soft)}"
    ".mark{stroke:var(--alarm);stroke-dasharray:4 3}svg .marked{fill:var(--alarm)}.curve{fill:none;stroke-width:2}"
    ".weight{stroke:var(--a);fill:none;stroke-width:2}.failed{stroke:var(--alarm)}"
    ".slow{stroke:var(--b);stroke-dasharray:7 3}.disagreement{stroke:var(--c);stroke-dasharray:2 3}"
)


@dataclass(frozen=True)
class _Panel:
    """One pair of axes; all panels share the time."""

    title: str
    top: int
    height: int
    most: float
    """The value at its upper edge."""
    end: float
    """Seconds at its right edge."""

    def x(self, second: float) -> float:
        return LEFT + second / self.end * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self.top + self.height - min(max(value / self.most, 0.0), 1.0) * self.height


def plot(samples: Sequence[Sample]) -> str:
    """Weight, and the candidate's shares of failed, slow and differing answers, over time; nothing for one sample."""
    if len(samples) < 2:
        return ""
    end = max(max(sample["t"] for sample in samples), 1e-3)
    shares = _shares(samples)
    most = _round_up(max([value for _, points in shares for _, value in points] + [0.02]))
    upper = _Panel("Live traffic on the candidate, %", 22, 90, 100.0, end)
    lower = _Panel("Share of answers, %", 150, 150, most, end)
    drawn = [_axes(upper), _axes(lower), _time(lower), _weight(upper, samples)]
    drawn += [_curve(lower, name, points) for name, points in shares] + [_legend(lower, [name for name, _ in shares])]
    drawn += [_mark(panel, samples) for panel in (upper, lower)]
    label = "Weight of the candidate, and shares of failed, slow and differing answers over time"
    return f'<svg viewBox="0 0 {WIDTH} 345" width="{WIDTH}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'


def _shares(samples: Sequence[Sample]) -> list[tuple[str, Points]]:
    return [
        ("failed", _rate([(s["t"], s["candidate_errors"], s["candidate_requests"]) for s in samples])),
        ("slow", _rate([(s["t"], s["slow_candidate"], s["candidate_requests"]) for s in samples])),
        ("disagreement", [(s["t"], s["disagreement"]) for s in samples]),
    ]


def _rate(rows: Sequence[tuple[float, int, int]]) -> Points:
    """(time, share) over windows, of (time, bad ones so far, all so far); no share where nothing was answered."""
    kept = [*rows[:: max(1, len(rows) // _WINDOWS)], rows[-1]]
    return [
        (after[0], min(max((after[1] - before[1]) / (after[2] - before[2]), 0.0), 1.0))
        for before, after in itertools.pairwise(kept)
        if after[2] > before[2]
    ]


def _round_up(value: float) -> float:
    """The next of 2, 5, 10, 20, 50 and 100 percent."""
    return next((step for step in (0.02, 0.05, 0.1, 0.2, 0.5) if value <= step), 1.0)


def _axes(panel: _Panel) -> str:
    """Title, three horizontal lines with their percentages, and the left edge."""
    drawn = [_text(LEFT, panel.top - 8, panel.title, "start", "title")]
    for share in (0.0, 0.5, 1.0):
        y, percent = panel.y(share * panel.most), share * panel.most * (1 if panel.most > 1 else 100)
        drawn.append(_line(LEFT, y, WIDTH - RIGHT, y, "grid") + _text(LEFT - 8, y + 4, f"{percent:g} %", "end"))
    return "".join(drawn) + _line(LEFT, panel.top, LEFT, panel.y(0), "axis")


def _time(panel: _Panel) -> str:
    """The common axis below the last panel."""
    base = panel.y(0)
    drawn = [_line(LEFT, base, WIDTH - RIGHT, base, "axis")]
    step = _tick(panel.end)
    for i in range(math.floor(panel.end / step) + 1):
        x = panel.x(i * step)
        drawn.append(_line(x, base, x, base + 5, "axis") + _text(x, base + 19, f"{i * step:g}", "middle"))
    return "".join(drawn) + _text((LEFT + WIDTH - RIGHT) / 2, base + 38, "seconds since the rollout began", "middle")


def _tick(end: float) -> float:
    """A round number of seconds that gives at most ten marks."""
    scale = 10.0 ** math.floor(math.log10(end / 10))
    return next(step * scale for step in (1.0, 2.0, 5.0, 10.0, 20.0) if end / (step * scale) <= 10)


def _weight(panel: _Panel, samples: Sequence[Sample]) -> str:
    """Steps: a weight holds until the next one."""
    points = [(samples[0]["t"], float(samples[0]["weight"]))]
    for sample in samples[1:]:
        points += [(sample["t"], points[-1][1]), (sample["t"], float(sample["weight"]))]
    return _curve(panel, "weight", points)


def _curve(panel: _Panel, name: str, points: Points) -> str:
    drawn = " ".join(f"{panel.x(t):.1f},{panel.y(value):.1f}" for t, value in points)
    return f'<polyline class="curve {name}" points="{drawn}"/>' if points else ""


def _legend(panel: _Panel, names: Sequence[str]) -> str:
    drawn, x = [], WIDTH - RIGHT - 370
    for name in names:
        y = panel.top - 12
        drawn.append(f'<path class="curve {name}" d="M{x} {y}h26"/>' + _text(x + 32, y + 4, LEGEND[name], "start"))
        x += 90
    return "".join(drawn)


def _mark(panel: _Panel, samples: Sequence[Sample]) -> str:
    """When the candidate was out of traffic."""
    out = next((s["t"] for s in samples if s["state"] in ("RollingBack", "RolledBack", "Inconclusive")), None)
    if out is None:
        return ""
    x, late = panel.x(out), out > 0.8 * panel.end
    words = _text(x + (-5 if late else 5), panel.top + 12, f"out at {out:.1f} s", "end" if late else "start", "marked")
    return _line(x, panel.top, x, panel.y(0), "mark") + (words if panel.top < 100 else "")


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> str:
    return f'<path class="{name}" fill="none" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str, name: str = "") -> str:
    named = f' class="{name}"' if name else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{html.escape(words)}</text>'
