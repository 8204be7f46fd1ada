"""The section on who asks: how well the model can be copied by its answers, and the guard that is to notice it."""

from markupsafe import Markup

from holdfast.artifacts.documents import ExtractionCurve, ExtractionReport, GuardCalibration
from holdfast.rendering.blocks import Block, Facts, Figure, Figures, PageLocation, PageSection, TableBlock, pairs
from holdfast.rendering.charts import Axis, Chart, DataSeries, Tone, line_chart, share_axis
from holdfast.rendering.numbers import number, percent
from holdfast_pipelines.report.evidence import LoadedRun
from holdfast_pipelines.report.model import BAND_NOTE, counted

_TONES: dict[str, Tone] = {"full": "a", "label": "b", "rounded": "c"}
_LEARNS = {"full": "from probabilities", "label": "from classes", "rounded": "from rounded probabilities"}
_NOTE = f"{BAND_NOTE} The level is what the budget keeps copies below."


def copies(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """How often copies agree with the model, after how many queries, and what the guard was calibrated to."""
    report, guard = run.document(ExtractionReport), run.document(GuardCalibration)
    blocks = [*(_extraction(report) if report else ()), *(_calibration(guard) if guard else ())]
    return PageSection("copies", "Copies and the guard", tuple(blocks)) if blocks else None


def _extraction(report: ExtractionReport) -> list[Block]:
    budget = "none of the numbers tried" if report.budget is None else f"{report.budget:,} queries"
    facts = Facts(pairs(budget_per_client=budget, decided_by=report.budget_reason))
    strategies = dict.fromkeys(curve.strategy for curve in report.curves)
    figures = tuple(Figure(name, _chart(report, name), _NOTE) for name in strategies)
    rows = tuple(_row(curve) for curve in report.curves)
    gone = tuple((one.strategy, f"{one.queries or 'any'}", one.reason) for one in report.left_out)
    blocks: list[Block] = [facts, Figures(figures), TableBlock(("what is asked", "learned", "agreement"), rows)]
    return [*blocks, TableBlock(("not tried", "queries from", "why"), gone)] if gone else blocks


def _row(curve: ExtractionCurve) -> tuple[str, ...]:
    shown = [f"{one.queries:,} queries: {one.agreed.k} of {one.agreed.n}" for one in curve.points]
    return curve.strategy, _LEARNS[curve.outputs], "; ".join(shown)


def _chart(report: ExtractionReport, strategy: str) -> Markup:
    curves = [curve for curve in report.curves if curve.strategy == strategy]
    lines = tuple(_line(curve) for curve in curves)
    counts = sorted({point.queries for curve in report.curves for point in curve.points})
    axis = Axis("queries", counts[0], max(counts[-1], counts[0] + 1), log=True, at=tuple(map(float, counts)))
    level = ((report.agreement_at_most, percent(report.agreement_at_most)),)
    told = "; ".join(tip for line in lines for tip in line.tips)
    return line_chart(Chart(f"Agreement: {strategy}", told, axis, share_axis("agreement"), lines, levels=level))


def _line(curve: ExtractionCurve) -> DataSeries:
    points = [(float(one.queries), f"{one.queries} queries", one.agreed) for one in curve.points]
    return counted(points, _LEARNS[curve.outputs], _TONES[curve.outputs])


def _calibration(guard: GuardCalibration) -> list[Block]:
    facts = Facts(
        pairs(
            distances=guard.features,
            false_alarm_per_client=number(guard.alpha),
            smallest_p_value=number(guard.least_p),
            made_up_users_alarmed=f"{guard.benign.k} of {guard.benign.n}",
        )
    )
    rows = tuple(
        (one.name, f"query {one.alarm_at}" if one.alarm_at else f"never in {one.queries}") for one in guard.streams
    )
    return [facts, TableBlock(("a client who asks", "is alarmed at"), rows)]
