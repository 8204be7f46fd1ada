"""The section on the runs of a workload: accuracy, robustness and latency, one against the other."""

from collections.abc import Callable, Sequence
from math import ceil, floor

from holdfast.artifacts.documents import Count
from holdfast.rendering.blocks import Block, BlockCell, Figure, Figures, PageLocation, PageSection, Prose, TableBlock
from holdfast.rendering.charts import Axis, Chart, DataSeries, Tone, line_chart, share_axis
from holdfast.rendering.numbers import CONFIDENCE, number, percent, span
from holdfast.rendering.text import clock
from holdfast.statistics import mean_of_rates
from holdfast_pipelines.report.evidence import LoadedRun
from holdfast_pipelines.report.history import MeasuredRun, runs_of_workload

ALONE = (
    "This is the only measured run of this workload, in this folder and in those next to it. With a second model, "
    "accuracy without attack, accuracy under attack and latency of all runs are drawn here, one against the other."
)
NOTE = (
    "Balanced accuracy: the mean of the classes' recall, with its 95 % interval. Latency: the median answer of the "
    "network alone, on one CPU thread of the machine that registered it, without a server; a model that was not "
    "registered has none."
)
_HEAD = ("run", "ended", "outcome", "recipe", "seed", "no attack", "under attack", "one row", "a batch")


def trade_off(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """The runs of the workload that were measured under the same attacks."""
    runs = runs_of_workload(run)
    if not runs:
        return None
    blocks: tuple[Block, ...] = (Prose(ALONE),)
    if len(runs) > 1:
        rows = tuple(_row(str(index), one) for index, one in enumerate(runs, start=1))
        blocks = (Figures(_figures(runs)), TableBlock(_HEAD, rows, numeric=(0, 4, 5, 6, 7, 8), note=NOTE))
    return PageSection("runs", "Runs of this workload", blocks)


def _figures(runs: Sequence[MeasuredRun]) -> tuple[Figure, ...]:
    clean = _around("balanced accuracy, no attack", [_mean(one.clean) for one in runs])
    drawn = [_figure("Accuracy against robustness", runs, clean, lambda one: _mean(one.clean))]
    timed = [time for one in runs if (time := _single_row(one)) is not None]
    if len(timed) > 1:
        axis = Axis("latency of one row (ms)", 0.0, 1.1 * max(timed))
        drawn.append(_figure("Latency against robustness", runs, axis, _single_row))
    return tuple(drawn)


def _around(label: str, shares: Sequence[float]) -> Axis:
    """An axis in percent around the shares, from ten to ten."""
    low, high = floor(10 * min(shares) - 0.5) / 10, ceil(10 * max(shares) + 0.5) / 10
    return Axis(label, max(low, 0.0), min(high, 1.0), show=share_axis(label).show)


def _single_row(one: MeasuredRun) -> float | None:
    return None if one.latency is None else one.latency.single_row_ms


def _figure(title: str, runs: Sequence[MeasuredRun], x: Axis, place: Callable[[MeasuredRun], float | None]) -> Figure:
    """One point for each run that has a place on the axis x; this run is the last of them."""
    points = [
        (str(index), at, _mean(one.worst_case), f"run {index}: {_told(one)}")
        for index, one in enumerate(runs, start=1)
        if (at := place(one)) is not None
    ]
    now = [point for point in points if point[0] == str(len(runs))]
    series = (_points("earlier runs", [p for p in points if p not in now], "a"), _points("this run", now, "b"))
    y = _around("balanced accuracy under attack", [one for _, _, one, _ in points])
    chart = Chart(title, "; ".join(tip for *_, tip in points), x, y, tuple(one for one in series if one.points))
    return Figure(title, line_chart(chart), "Upwards: balanced accuracy under attack. Numbers are those of the table.")


def _points(name: str, found: Sequence[tuple[str, float, float, str]], tone: Tone) -> DataSeries:
    return DataSeries(
        name,
        tuple((x, y) for _, x, y, _ in found),
        tone,
        tips=tuple(tip for *_, tip in found),
        line=False,
        words=tuple(word for word, *_ in found),
    )


def _row(name: str, one: MeasuredRun) -> tuple[BlockCell, ...]:
    times = ("not measured", "not measured")
    if one.latency is not None:
        batch = f"{number(one.latency.batch_ms)} ms for {one.latency.batch_rows}"
        times = (f"{number(one.latency.single_row_ms)} ms", batch)
    when = clock(one.ended) if one.ended else "now"
    return (name, when, one.outcome, one.recipe, one.seed, _shown(one.clean), _shown(one.worst_case), *times)


def _told(one: MeasuredRun) -> str:
    return f"{_shown(one.clean)} without attack, {_shown(one.worst_case)} under attack"


def _shown(recalls: Sequence[Count]) -> str:
    found = mean_of_rates([(one.k, one.n) for one in recalls if one.n], (1 - CONFIDENCE) / 2)
    return f"{percent(_mean(recalls))} {span(found.lower, found.upper)}"


def _mean(recalls: Sequence[Count]) -> float:
    """Balanced accuracy: the mean of the recalls of the classes that have examples."""
    shares = [one.share for one in recalls if one.n]
    return sum(shares) / len(shares) if shares else 0.0
