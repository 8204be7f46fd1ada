"""The sections on the delivery: what it holds, its contract, and its drift."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from holdfast.artifacts.documents import ColumnDrift, DriftReport, Reviewed, SchemaReport, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.rendering.blocks import (
    Block,
    BlockCell,
    Facts,
    Figure,
    Figures,
    PageLocation,
    PageSection,
    Prose,
    TableBlock,
    TwoColumns,
    code,
    cut,
    pairs,
)
from holdfast.rendering.charts import Bar, DataSeries, HistogramPair, Tone, bar_chart, column_chart, histogram_pair
from holdfast.rendering.numbers import number, short
from holdfast.steps import writer
from holdfast.wording import listed
from holdfast_pipelines.report.evidence import Distribution, LoadedRun, read_distributions

MOST_HISTOGRAMS = 6
MOST_BARS = 12
MOST_FOLDED = 200
SMALL_EFFECT = 0.2
"""A small effect by convention (Cohen): shorter bars must not look long."""


def delivery(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """What was delivered."""
    snapshot = run.document(Snapshot)
    if snapshot is None:
        return None
    facts = pairs(
        modality=snapshot.modality,
        training_rows=snapshot.train_rows,
        held_out_rows=snapshot.test_rows,
        classes=len(snapshot.classes),
        **({"rows_dropped_by_a_reviewer": _dropped(snapshot.review)} if snapshot.review else {}),
        **({"columns_left_out": listed(snapshot.left_out)} if snapshot.left_out else {}),
        **({"one_value_in_every_row": listed(snapshot.constant)} if snapshot.constant else {}),
        one_example=" × ".join(str(size) for size in snapshot.shape),
        Merkle_root=code(short(snapshot.root), snapshot.root),
    )
    figure = Figure(
        "Class balance", _balance(snapshot), "Share of the rows of each part; point at a column for the count."
    )
    sources = cut(
        [(s.path, s.bytes, code(short(s.sha256), s.sha256)) for s in snapshot.sources],
        6,
        ("file", "bytes", "sha256"),
        numeric=(1,),
    )
    return PageSection("delivery", "Delivery", (Facts(facts), TwoColumns(Figures((figure,)), sources)))


def _dropped(review: Reviewed) -> str:
    return f"{review.dropped} training, {review.dropped_held_out} held-out"


def contract(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """Whether the delivery keeps to its schema."""
    report = run.document(SchemaReport)
    if report is None:
        return None
    facts = Facts(
        pairs(
            schema=report.source,
            reviewed_by=report.reviewed_by or "not reviewed yet",
            columns=report.columns,
            rows=report.rows,
            anomalies=len(report.anomalies),
        )
    )
    rows = [(code(a.column), a.kind, a.detail) for a in report.anomalies]
    found: Block = cut(rows, 50, ("column", "anomaly", "what was found"))
    if not rows:
        found = Prose(f"All {report.columns} columns keep to the schema.")
    return PageSection(writer(SchemaReport).name, "Schema", (facts, found), report.verdict.value)


def drift(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """Whether the delivery comes from another distribution."""
    artifact = run.artifact(DriftReport)
    if artifact is None:
        return None
    report = artifact.document
    ordered = sorted(report.stage_one, key=lambda column: (-column.effect, column.column))
    blocks: list[Block] = [_drift_facts(artifact, place), Prose(report.reason)]
    if ordered:
        blocks += [_drift_figures(artifact, ordered), _stage_one(ordered)]
    return PageSection(writer(DriftReport).name, "Drift", tuple(blocks), report.verdict.value)


_EFFECT_NOTE = "Shift in standard deviations, by ranks (numbers) or total variation distance (categories)."


def _balance(snapshot: Snapshot) -> Any:
    parts: tuple[tuple[str, tuple[int, ...], Tone], ...] = (
        (f"training ({snapshot.train_rows} rows)", snapshot.train_per_class, "a"),
        (f"held out ({snapshot.test_rows} rows)", snapshot.test_per_class, "b"),
    )
    groups = tuple(
        DataSeries(name, _share_points(counts), tone, tips=_count_tips(snapshot.classes, counts))
        for name, counts, tone in parts
    )
    told = ", ".join(
        f"{name}: {count}" for name, count in zip(snapshot.classes, snapshot.train_per_class, strict=False)
    )
    return column_chart("Class balance", f"Training rows per class. {told}", snapshot.classes, groups)


def _share_points(counts: Sequence[int]) -> tuple[tuple[float, float], ...]:
    total = sum(counts) or 1
    return tuple((float(index), count / total) for index, count in enumerate(counts))


def _count_tips(classes: Sequence[str], counts: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{name}: {count} rows" for name, count in zip(classes, counts, strict=False))


def _drift_facts(artifact: Artifact[DriftReport], place: PageLocation) -> Facts:
    report = artifact.document
    against = "the champion's training rows" if report.reference == "champion" else "the delivery's own held-out rows"
    facts: list[tuple[str, BlockCell]] = [
        ("compared with", against),
        ("columns drifted", f"{report.drifted.k} of {report.drifted.n}"),
    ]
    stage = report.stage_two
    if stage:
        means = f"{number(stage.reference_mean)} before, {number(stage.current_mean)} now"
        test = f"{stage.test}: {number(stage.statistic)} against {number(stage.threshold)}"
        facts += [
            ("champion's confidence", means),
            ("stage two", f"{'drifted' if stage.drifted else 'no drift'} ({test})"),
        ]
    else:
        facts.append(("stage two", "no champion to ask yet"))
    if "evidently.html" in artifact.document.files:
        facts.append(("full report", place.link(artifact.path("evidently.html"), "Evidently's pages")))
    return Facts(tuple(facts))


def _effects(columns: Sequence[ColumnDrift]) -> Any:
    bars = [
        Bar(
            c.column,
            c.effect,
            f"{c.column}: effect {number(c.effect)}; {c.test} {number(c.statistic)}, threshold {number(c.threshold)}",
            loud=c.drifted,
            note="drifted" if c.drifted else "",
        )
        for c in columns[:MOST_BARS]
    ]
    drifted = sum(c.drifted for c in columns)
    return bar_chart("Effect per column", f"{drifted} of {len(columns)} columns drifted", bars, full=SMALL_EFFECT)


def _drift_figures(artifact: Artifact[DriftReport], columns: Sequence[ColumnDrift]) -> Block:
    title = f"Effect per column{f' (the largest {MOST_BARS})' if len(columns) > MOST_BARS else ''}"
    effects = Figures((Figure(title, _effects(columns), _EFFECT_NOTE),))
    histograms = _histograms(artifact, columns)
    if not histograms:
        return effects
    return TwoColumns(effects, Figures(histograms, "small", "Filled: reference. Outline: this delivery."))


def _histograms(artifact: Artifact[DriftReport], columns: Sequence[ColumnDrift]) -> tuple[Figure, ...]:
    told = read_distributions(artifact)
    shown = [column for column in columns if column.column in told][:MOST_HISTOGRAMS]
    return tuple(Figure("", histogram_pair(_pair(column, told[column.column]))) for column in shown)


def _pair(column: ColumnDrift, told: Distribution) -> HistogramPair:
    categories = tuple(str(name) for name in told.categories)
    return HistogramPair(column.column, told.reference, told.current, told.edges, categories, loud=column.drifted)


def _stage_one(columns: Sequence[ColumnDrift]) -> TableBlock:
    rows = [
        (code(c.column), c.test, c.statistic, c.threshold, c.effect, "drifted" if c.drifted else "no") for c in columns
    ]
    head = ("column", "test", "statistic", "threshold", "effect", "drifted")
    return replace(cut(rows, MOST_FOLDED, head, numeric=(2, 3, 4)), fold=f"All {len(rows)} columns in numbers")
