"""The sections on the model: how it was trained, what attacks do to it, what is certified, whether it has a trigger."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from markupsafe import Markup

from holdfast.artifacts.documents import (
    AttackResult,
    BackdoorReport,
    Certificate,
    ChampionComparison,
    Count,
    Model,
    Paired,
    RobustnessReport,
    ThreatModel,
)
from holdfast.artifacts.folder import Artifact
from holdfast.rendering import operating
from holdfast.rendering.blocks import (
    Block,
    Facts,
    Figure,
    Figures,
    Gallery,
    PageLocation,
    PageSection,
    Picture,
    Prose,
    TableBlock,
    TwoColumns,
    code,
    cut,
    pairs,
)
from holdfast.rendering.charts import Axis, Chart, DataSeries, Mark, Tone, line_chart, share_axis
from holdfast.rendering.numbers import interval, number, percent, span
from holdfast_pipelines.report.evidence import CurvePoint, LoadedRun, read_arrays, read_epochs
from holdfast_pipelines.report.pictures import side_by_side

BAND_NOTE = "Shaded: 95 % Clopper-Pearson interval."
MOST_TRIGGERS = 24
MOST_CLASSES = 50
_RECALL = "Recall: answered with the class, of its examples."
_PRECISION = "Precision: of the class, of the examples answered with it."
_MORE = "Where a class is rare in the sample, recall is counted on more of its held-out examples."


def training(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """How the model was trained."""
    artifact = run.artifact(Model)
    if artifact is None:
        return None
    model = artifact.document
    recipe = ", ".join(f"{name} {value}" for name, value in sorted(model.recipe.items()))
    facts = Facts(
        pairs(
            network=f"{model.architecture.name}, {model.architecture.parameters:,} parameters",
            threat_model=threat(model.threat),
            best_epoch=model.best_epoch,
            clean_accuracy_held_out=model.clean,
            under_the_selection_attack=model.robust,
            **_decided(model),
            weights=code(artifact.digest[:12], artifact.digest),
        )
    )
    return PageSection("training", "Training", (facts, *_curves(artifact), Prose(f"Recipe: {recipe}.")))


def _decided(model: Model) -> dict[str, str]:
    """The operating point and how it was chosen; nothing for a model without one."""
    point = model.operating_point
    if point is None:
        return {}
    return {
        "operating_point": operating.in_words(point),
        "on_the_rows_that_chose_it": operating.chosen_on(point),
    }


def attacks(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """What attacks do to the model."""
    report = run.document(RobustnessReport)
    if report is None:
        return None
    rows = [("no attack", "", "", "", "", report.clean), *(_attack_row(attack) for attack in report.attacks)]
    rows.append(("worst case per example", "", "", "", "", report.worst_case))
    table = TableBlock(
        ("attack", "library", "threat model", "steps", "restarts", "still correct"), tuple(rows), numeric=(3, 4, 5)
    )
    blocks: list[Block] = [Facts(pairs(tier=report.tier, examples=report.clean.n, seed=report.seed))]
    if report.curve:
        figure = Figure("Accuracy against epsilon", _epsilon_chart(report), BAND_NOTE)
        points = tuple((exact(point.epsilon, _unit(report)), point.survived) for point in report.curve)
        blocks.append(TwoColumns(Figures((figure,)), TableBlock(("epsilon", "still correct"), points, numeric=(0, 1))))
    blocks += [
        table,
        *_by_class(report),
        *_operating(report),
        *_corruptions(report),
        _masking(report),
        *_champion(report),
    ]
    return PageSection("attacks", "Accuracy under attack", tuple(blocks))


def certificate(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """What is certified."""
    report = run.document(Certificate)
    if report is None:
        return None
    facts = Facts(pairs(method=report.method.replace("-", " "), norm=report.norm, **_effort(report)))
    rows = tuple((number(at.radius), at.certified) for at in report.certified)
    classes = tuple(report.certified[0].classes) if report.certified else ()
    head = (f"radius ({report.norm}, {report.unit})", "certified and correct")
    table = TableBlock(head, rows, numeric=(0, 1))
    blocks: tuple[Block, ...] = (facts, table)
    if report.certified:
        figure = Figure(
            "Certified accuracy against radius",
            _radius_chart(report),
            f"{BAND_NOTE} Abstentions count as not certified.",
        )
        blocks = (facts, TwoColumns(Figures((figure,)), table), *_certified_by_class(report, classes))
    return PageSection("certificate", "Certified accuracy", blocks)


def _certified_by_class(report: Certificate, classes: Sequence[str]) -> list[Block]:
    """One row for each class, one column for each radius."""
    if not classes:
        return []
    head = ("class: certified and correct", *(f"radius {number(at.radius)}" for at in report.certified))
    rows = tuple(
        (name, *(f"{at.classes[name].k} of {at.classes[name].n}" for at in report.certified)) for name in classes
    )
    return [cut(rows, MOST_CLASSES, head, numeric=tuple(range(1, len(head))))]


def _effort(report: Certificate) -> dict[str, Any]:
    """What it took: bounds are deterministic, so noise, samples and alpha are those of smoothing and ablation only."""
    if not report.samples:
        return {"proves": "every input of the box, without chance"}
    taken: dict[str, Any] = {"noise": report.noise, "samples": report.samples, "alpha_per_example": report.alpha}
    if report.mode == "sequential":
        taken |= {"mode": "sequential", "copies_asked_about": report.forwards}
    return taken | {"abstained": report.abstained}


def triggers(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """Whether a trigger was found."""
    artifact = run.artifact(BackdoorReport)
    if artifact is None:
        return None
    report = artifact.document
    rows = tuple(
        (t.target, t.size, t.anomaly_index, t.success, "flagged" if t.flagged else "no") for t in report.triggers
    )
    head = ("target class", "trigger size", "anomaly index", "sends others to it", "flagged")
    words = f"Flagged: {', '.join(report.flagged)}." if report.flagged else "No class is flagged."
    why = f" {report.reason[:1].upper()}{report.reason[1:]}." if report.reason else ""
    blocks: tuple[Block, ...] = (Prose(f"{words} Method: {report.method}.{why}"), *_trigger_pictures(artifact))
    return PageSection(
        "triggers", "Backdoor triggers", (*blocks, TableBlock(head, rows, numeric=(1, 2, 3))), report.verdict.value
    )


_ROUND = 20
"""Fractions with a denominator up to this are as people write them: 1/10, not 51/510."""


def threat(model: ThreatModel) -> str:
    """A threat model in words: "linf, epsilon 8/255 (input units [0, 1])"."""
    return f"{model.norm}, epsilon {exact(model.epsilon, model.unit)} ({model.unit})"


def exact(epsilon: Fraction, unit: str) -> str:
    """An epsilon as people write it: pixels in 255ths, the rest as the shortest fraction."""
    pixels = 255 * epsilon
    if unit.startswith("input units") and pixels.denominator == 1 and epsilon.denominator > _ROUND:
        return f"{pixels}/255"
    return str(epsilon)


def _attack_row(attack: AttackResult) -> tuple[Any, ...]:
    name = f"{attack.name} (on the remaining examples)" if attack.cumulative else attack.name
    return (name, attack.library, threat(attack.threat), attack.steps, attack.restarts, attack.survived)


def _by_class(report: RobustnessReport) -> list[Block]:
    """Recall and precision of every class, without and under attack, and what a constant answer reaches."""
    clean, attacked = report.clean_performance, report.worst_case_performance
    if clean is None or attacked is None:
        return []
    facts = {
        "balanced_accuracy": f"{percent(clean.balanced_accuracy)} clean, "
        f"{percent(attacked.balanced_accuracy)} under attack",
        "best_constant_answer": f"{clean.best_constant.k} of {clean.best_constant.n} right, "
        f"balanced accuracy {percent(1 / len(clean.classes))}",
    }
    for name, of in (("ROC-AUC", "roc_auc"), ("PR-AUC", "pr_auc")):
        if (value := getattr(clean, of)) is not None and (under := getattr(attacked, of)) is not None:
            facts[f"{name} of {clean.positive!r}"] = f"{value:.3f} clean, {under:.3f} under attack"
    head = ("class", "recall", "recall under attack", "precision", "precision under attack")
    rows = tuple(
        (one.name, one.recall, under.recall, one.precision, under.precision)
        for one, under in zip(clean.classes, attacked.classes, strict=True)
    )
    table = cut(rows, MOST_CLASSES, head, numeric=(1, 2, 3, 4))
    return [Facts(pairs(**facts)), table, Prose(f"{_RECALL} {_PRECISION} {_MORE}")]


def _operating(report: RobustnessReport) -> list[Block]:
    """What the operating point brings; nothing for a model without one."""
    result = report.operating_point
    if result is None:
        return []
    head, rows = operating.head(result), operating.rows(result)
    table = TableBlock(head, rows, numeric=tuple(range(1, len(head))), note=operating.NOTE)
    return [Facts(pairs(operating_point=operating.in_words(result.point))), table]


def _corruptions(report: RobustnessReport) -> list[Block]:
    """One row for each corruption, one column for each severity; nothing for tables and messages."""
    severities = sorted({found.severity for found in report.corruptions})
    names = list(dict.fromkeys(found.name for found in report.corruptions))
    if not names:
        return []
    counts = {(found.name, found.severity): found.survived for found in report.corruptions}
    rows = tuple((name, *(counts.get((name, severity), "") for severity in severities)) for name in names)
    head = ("corruption (no attack)", *(f"severity {severity}" for severity in severities))
    return [TableBlock(head, rows, numeric=tuple(range(1, len(head))))]


def _curves(artifact: Artifact[Model]) -> list[Block]:
    rows = read_epochs(artifact)
    if not rows:
        return []
    epochs = Axis("epoch", rows[0].epoch, rows[-1].epoch, at=_epoch_ticks(rows))
    best = (Mark(artifact.document.best_epoch, "best"),)
    clean = [(float(row.epoch), f"epoch {row.epoch}", Count(k=row.clean, n=row.rows)) for row in rows]
    robust = [(float(row.epoch), f"epoch {row.epoch}", Count(k=row.robust, n=row.rows)) for row in rows]
    lines = (counted(clean, "no attack", "a"), counted(robust, "under attack", "b"))
    shares = Chart("Accuracy while training", _told(lines), epochs, share_axis("accuracy"), lines, best)
    note = f"On the {rows[0].rows} training rows set apart to choose the epoch. {BAND_NOTE}"
    return [Figures((Figure(shares.title, line_chart(shares), note), _loss(rows, epochs, best)))]


def _loss(rows: Sequence[CurvePoint], epochs: Axis, best: tuple[Mark, ...]) -> Figure:
    points = tuple((float(row.epoch), row.loss) for row in rows)
    tips = tuple(f"epoch {row.epoch}: {number(row.loss)}" for row in rows)
    line = DataSeries("training loss", points, "c", tips=tips)
    high = max(row.loss for row in rows) * 1.05 or 1.0
    chart = Chart("Training loss", _told((line,)), epochs, Axis("loss", 0.0, high), (line,), best)
    return Figure(chart.title, line_chart(chart))


def _epoch_ticks(rows: Sequence[CurvePoint]) -> tuple[float, ...]:
    epochs = [float(row.epoch) for row in rows]
    every = max(1, -(-len(epochs) // 8))
    return tuple(epochs[::every])


def _told(series: Sequence[DataSeries]) -> str:
    return "; ".join(f"{one.name}: from {number(one.points[0][1])} to {number(one.points[-1][1])}" for one in series)


def counted(points: Sequence[tuple[float, str, Count]], name: str, tone: Tone) -> DataSeries:
    """A line of rates with their intervals; each point is (x, how x reads, count)."""
    tips = tuple(f"{at}: {c.k} of {c.n} = {percent(c.share)} {span(*interval(c))}" for _, at, c in points)
    band = tuple(interval(count) for _, _, count in points)
    return DataSeries(name, tuple((x, count.share) for x, _, count in points), tone, band, tips)


def _epsilon_chart(report: RobustnessReport) -> Markup:
    curve = sorted(report.curve, key=lambda point: point.epsilon)
    unit = _unit(report)
    names = {float(p.epsilon): exact(p.epsilon, unit) for p in curve}
    points = [(float(p.epsilon), f"epsilon {exact(p.epsilon, unit)}", p.survived) for p in curve]
    line = counted(points, "still correct under PGD", "b")
    axis = Axis(
        f"epsilon ({unit})", 0.0, max(names), show=lambda value: names.get(value, number(value)), at=tuple(names)
    )
    judged = sorted({float(attack.threat.epsilon) for attack in report.attacks})
    marks = tuple(Mark(epsilon, "threat model") for epsilon in judged[-1:])
    told = "; ".join(line.tips)
    return line_chart(Chart("Accuracy against epsilon", told, axis, share_axis("accuracy"), (line,), marks))


def _unit(report: RobustnessReport) -> str:
    return report.attacks[0].threat.unit if report.attacks else ""


def _radius_chart(report: Certificate) -> Markup:
    points = sorted(report.certified, key=lambda at: at.radius)
    line = counted(
        [(at.radius, f"radius {number(at.radius)}", at.certified) for at in points], "certified and correct", "a"
    )
    axis = Axis(
        f"radius ({report.norm}, {report.unit})",
        0.0,
        max(at.radius for at in points) or 1.0,
        at=tuple(at.radius for at in points),
    )
    chart = Chart("Certified accuracy against radius", "; ".join(line.tips), axis, share_axis("accuracy"), (line,))
    return line_chart(chart)


def _masking(report: RobustnessReport) -> TableBlock:
    rows = tuple((check.name, check.verdict, check.detail) for check in report.masking)
    note = f"No second library attacked the model: {report.no_second_opinion}." if report.no_second_opinion else ""
    return TableBlock(("is robustness overestimated?", "verdict", "detail"), rows, note=note)


def _champion(report: RobustnessReport) -> list[Block]:
    compared = (("no attack", report.champion_clean), ("worst case", report.champion_worst_case))
    rows = tuple((name, *_paired(pair)) for name, pair in compared if pair)
    head = ("on the same examples", "candidate", "champion", "both right", "only candidate", "only champion", "neither")
    table = [TableBlock(head, rows, numeric=(1, 2, 3, 4, 5, 6))] if rows else []
    return [*table, *(Prose(sentence) for sentence in _about_champion(report))]


def _about_champion(report: RobustnessReport) -> list[str]:
    """What the table of pairs does not show."""
    found = report.champion or ChampionComparison()
    contract = f"The candidate has another contract than the champion: {'; '.join(found.differences)}."
    missing = found.not_compared or ("" if report.champion_clean else "there is none yet")
    return [
        *([contract] if found.differences else []),
        *([f"No champion was compared: {missing}."] if missing else []),
        *([f"The champion was not attacked: {found.not_attacked}."] if found.not_attacked else []),
    ]


def _paired(pair: Paired) -> tuple[Any, ...]:
    candidate, champion = Count(k=pair.both + pair.only_candidate, n=pair.n), pair.champion_right
    return candidate, champion, pair.both, pair.only_candidate, pair.only_champion, pair.neither


def _trigger_pictures(artifact: Artifact[BackdoorReport]) -> list[Block]:
    arrays = read_arrays(artifact, "triggers.npz")
    mask, pattern = arrays.get("mask"), arrays.get("pattern")
    found = artifact.document.triggers
    if mask is None or pattern is None or pattern.ndim != 4 or len(mask) != len(pattern) or len(mask) != len(found):
        return []
    # One mask float[K, H, W] for all channels, or one per channel float[K, C, H, W].
    shapes = mask if mask.ndim == 4 else mask[:, None]
    items = tuple(
        Picture(
            side_by_side(shapes[i], shapes[i] * pattern[i]),
            f"to {trigger.target}{' · flagged' if trigger.flagged else ''}",
            f"size {number(trigger.size)}",
        )
        for i, trigger in enumerate(found[:MOST_TRIGGERS])
    )
    return [Gallery("Recovered triggers", items, "Left: where the trigger is. Right: what it paints there.")]
