"""The traffic of a rollout over time: weight, failed, slow and differing answers, and the evidence of the tests."""

import itertools
from collections.abc import Callable, Sequence

from holdfast.artifacts.timeline import Sample
from holdfast.rendering.blocks import Figure, Figures
from holdfast.rendering.charts import Axis, DataSeries, Mark, Panel, Stack, Tone, share_axis, stacked_chart
from holdfast.rendering.numbers import number, seconds

TITLE = "Traffic, failures and evidence over time"
ENDS = {"RollingBack": "rolled back", "RolledBack": "rolled back", "Promoted": "promoted", "Inconclusive": "taken back"}
"""States in which the traffic has its last place, and the word for the moment."""
_E_LOW, _E_HIGH = 1e-2, 1e6
"""Where the axis of e-values ends; what lies beyond is drawn at the edge."""
_WINDOWS = 36
"""Rates are taken over about this many windows of a rollout."""

Points = Sequence[tuple[float, float]]
Line = tuple[str, Tone, Points]
"""Name, tone, and (seconds, value) of each point."""


def traffic(samples: Sequence[Sample], desc: str) -> tuple[Figures, ...]:
    """The chart, with `desc` for those who cannot see it; none for fewer than two samples."""
    if len(samples) < 2:
        return ()
    moment = _moment(samples)
    first, last = samples[0].t, samples[-1].t
    stack = Stack(
        TITLE,
        desc,
        Axis("seconds since the rollout began", min(first, 0.0), max(last, first + 1e-6)),
        tuple(panel for panel in (part(samples) for part in _PANELS) if panel),
        _states(samples),
        moment,
    )
    when = f" {moment.word.capitalize()} after {seconds(moment.x)}." if moment else ""
    note = f"Rates over windows of about {seconds((last - first) / min(_WINDOWS, len(samples)))}; "
    note += f"e-values on a log scale, cut at the edges.{when}"
    return (Figures((Figure(stack.title, stacked_chart(stack), note),), size="wide"),)


def _weight(samples: Sequence[Sample]) -> Panel:
    points = tuple((one.t, float(one.weight)) for one in samples)
    axis = Axis("live traffic on the candidate", 0.0, 100.0, show=lambda value: f"{number(value)} %", at=(0, 50, 100))
    return Panel(axis, (DataSeries("candidate", points, "b", marks=False, step=True),), height=84, area=True)


def _failed(samples: Sequence[Sample]) -> Panel | None:
    candidate = _windowed([(one.t, one.candidate_errors, one.candidate_requests) for one in samples])
    champion = _windowed([(one.t, one.champion_errors, one.champion_requests) for one in samples])
    return _share_panel("failed answers", (("champion", "a", champion), ("candidate", "b", candidate)))


def _slow(samples: Sequence[Sample]) -> Panel | None:
    candidate = _windowed([(one.t, one.slow_candidate, one.candidate_requests) for one in samples])
    champion = _windowed([(one.t, one.slow_champion, one.champion_requests) for one in samples])
    return _share_panel("slow answers", (("champion", "a", champion), ("candidate", "b", candidate)))


def _differing(samples: Sequence[Sample]) -> Panel | None:
    """Paired answers that differ, of all pairs so far; no panel where none does."""
    if not any(one.disagreement for one in samples):
        return None
    return _share_panel(
        "paired answers that differ", (("so far", "b", [(one.t, one.disagreement) for one in samples]),)
    )


def _share_panel(word: str, lines: Sequence[Line]) -> Panel | None:
    """Shares of answers; no panel where nothing was answered."""
    found = [y for _, _, points in lines for _, y in points]
    if not found:
        return None
    axis = share_axis(word, min(max(max(found) * 1.15, 0.05), 0.999), about=3)
    return Panel(axis, _series([line for line in lines if line[2]]), height=84)


def _answers(samples: Sequence[Sample]) -> Panel | None:
    """Tests on failures and on slowness."""
    return _evidence_panel("e-values against its answers", samples, {"errors": "e_errors", "slow": "e_slow"})


def _predictions(samples: Sequence[Sample]) -> Panel | None:
    """Tests on what the candidate predicts, compared with the champion; no panel where no pairs were sent."""
    named = {"disagreement": "e_disagreement", "drift": "e_drift", "attack": "e_attack"}
    moved = {word: name for word, name in named.items() if any(getattr(one, name) != 1.0 for one in samples)}
    return _evidence_panel("e-values against its predictions", samples, moved) if moved else None


def _evidence_panel(label: str, samples: Sequence[Sample], named: dict[str, str]) -> Panel:
    """E-values; `named` holds the word and the field of each, at most three."""
    tones: tuple[Tone, ...] = ("a", "b", "c")
    lines = [
        (word, tone, [(one.t, float(getattr(one, name))) for one in samples])
        for (word, name), tone in zip(named.items(), tones, strict=False)
    ]
    found = [value for _, _, points in lines for _, value in points]
    low, high = max(min(*found, 0.1), _E_LOW), min(max(*found, 1e3), _E_HIGH)
    return Panel(Axis(label, low, high, show=_power, log=True), _series(lines), height=110)


def _series(lines: Sequence[Line]) -> tuple[DataSeries, ...]:
    return tuple(DataSeries(name, tuple(points), tone, marks=False) for name, tone, points in lines)


def _power(value: float) -> str:
    return f"{value:g}" if 1e-3 <= value <= 1e4 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


_PANELS: tuple[Callable[[Sequence[Sample]], Panel | None], ...] = (
    _weight, _failed, _slow, _differing, _answers, _predictions,
)  # fmt: skip


def _windowed(rows: Sequence[tuple[float, int, int]]) -> list[tuple[float, float]]:
    """(time, rate) over windows, of (time, bad ones so far, all so far); a window without answers has no rate."""
    kept = [*rows[:: max(1, len(rows) // _WINDOWS)], rows[-1]]
    return [
        (after[0], min(max((after[1] - before[1]) / (after[2] - before[2]), 0.0), 1.0))
        for before, after in itertools.pairwise(kept)
        if after[2] > before[2]
    ]


def _states(samples: Sequence[Sample]) -> tuple[tuple[float, float, str], ...]:
    groups = [(state, list(group)) for state, group in itertools.groupby(samples, key=lambda one: one.state)]
    starts = [group[0].t for _, group in groups] + [samples[-1].t]
    return tuple((starts[i], starts[i + 1], state) for i, (state, _) in enumerate(groups))


def _moment(samples: Sequence[Sample]) -> Mark | None:
    for one in samples:
        if one.state in ENDS:
            return Mark(one.t, ENDS[one.state], loud=True)
    return None
