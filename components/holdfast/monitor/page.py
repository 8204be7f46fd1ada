"""The report as a page: the stages, their evidence over the hours, and the columns that moved."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import MonitorReport
from holdfast.rendering.blocks import Facts, Figure, Figures, PageSection, Prose, TableBlock
from holdfast.rendering.charts import Axis, Chart, DataSeries, line_chart
from holdfast.rendering.page import Article, render


def page(report: MonitorReport, name: str, evidence: Mapping[str, NDArray[np.float64]]) -> str:
    """One HTML file that needs nothing else.

    Args:
        report: what was found.
        name: of the model.
        evidence: stage -> the evidence after each window that was judged.
    """
    article = Article(
        key="monitor",
        title=f"{name}, {report.first[:13]} to {report.last[:13]}",
        sections=(_stages(report), _course(report, evidence), _columns(report)),
        text=(report.reason, report.advice),
        outcome=report.verdict.value,
        facts=Facts((("model", report.model[:12]), ("windows", report.windows), ("next", report.next))),
    )
    return render(f"Monitor: {name}", [article], motto="", footer="")


def _stages(report: MonitorReport) -> PageSection:
    rows = tuple((s.stage, s.evidence, s.limit, s.seen, s.alarm, s.reason) for s in report.stages)
    head = ("stage", "evidence", "limit", "windows or labels", "alarm", "")
    words = "Evidence starts at 1 in each period. " + ("The labels were selected." if report.selected else "")
    loss = () if report.loss is None else (Facts((("wrong answers of labelled rows", report.loss),)),)
    return PageSection("stages", "Stages", (TableBlock(head, rows, numeric=(1, 2, 3), note=words), *loss))


def _course(report: MonitorReport, evidence: Mapping[str, NDArray[np.float64]]) -> PageSection:
    drawn = [(stage, evidence[stage.stage]) for stage in report.stages if len(evidence.get(stage.stage, ()))]
    figures = tuple(
        Figure(f"Evidence of {stage.stage}", line_chart(_chart(stage.stage, stage.limit, values)), "log scale")
        for stage, values in drawn
    )
    if not figures:
        return PageSection("course", "Over the hours", (Prose("No window after the stable ones yet."),))
    return PageSection("course", "Over the hours", (Figures(figures),))


def _chart(stage: str, limit: float, values: NDArray[np.float64]) -> Chart:
    shown = np.clip(values, 0.01, 1e6)
    points = tuple((float(i), float(value)) for i, value in enumerate(shown))
    return Chart(
        f"Evidence of {stage}",
        f"{len(values)} windows; the highest evidence is {values.max():.3g}, the limit {limit:.3g}",
        Axis("windows after the stable ones", 0, max(len(values) - 1, 1)),
        Axis("evidence", 0.01, 1e6, log=True),
        (DataSeries(stage, points, marks=False),),
        levels=((limit, "limit"),),
    )


def _columns(report: MonitorReport) -> PageSection:
    rows = tuple((c.column, c.distance, c.usual, c.moved, c.unknown) for c in report.columns)
    head = ("column", "distance", "largest when stable", "rows moved", "unknown or missing")
    began = f"Since {report.began}, {report.change}." if report.began else "In the last window."
    return PageSection("columns", "Columns", (TableBlock(head, rows, numeric=(1, 2, 3, 4), note=began),))
