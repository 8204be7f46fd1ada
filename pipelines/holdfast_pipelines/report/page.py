"""Puts a page together: what each run has to say, in the order of the pipeline, as one file that needs nothing else."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Count, GateDecision, Registration, RolloutRecord, Verdict
from holdfast.artifacts.folder import Ref, load, replace_file
from holdfast.rendering.blocks import (
    Block,
    BlockCell,
    Facts,
    Gallery,
    PageLocation,
    PageSection,
    Picture,
    TableBlock,
    badge,
    code,
)
from holdfast.rendering.numbers import seconds
from holdfast.rendering.page import Article, render
from holdfast.steps import STEPS, names
from holdfast_pipelines.record import StepRecord
from holdfast_pipelines.report import copying, data, judgement, model, quarantine, runs
from holdfast_pipelines.report.chain import chain
from holdfast_pipelines.report.dag import Node, NodeState, draw
from holdfast_pipelines.report.evidence import KINDS, LoadedRun, read_run
from holdfast_pipelines.report.pictures import example_uri

SECTIONS: tuple[Callable[[LoadedRun, PageLocation], PageSection | None], ...] = (
    judgement.decided,
    data.delivery,
    data.contract,
    data.drift,
    quarantine.quarantine,
    model.training,
    model.triggers,
    model.attacks,
    model.certificate,
    copying.copies,
    judgement.gate,
    judgement.rollout,
    runs.trade_off,
    chain,
)
"""The parts of a run's page, in the order of the pipeline."""
MOTTO = "Only models that hold fast ship. What a run found was read from its artifacts, each with its digest checked."
FOOTER = (
    "Rates stand with their two-sided 95 % Clopper-Pearson interval and the counts behind them; the gate compares "
    "one-sided bounds at its policy's alpha."
)


@dataclass(frozen=True)
class Comparison:
    """A table of things side by side: the first of each row names what is compared, `columns` name the others.

    A `Count` is shown as a rate with its interval, a `Verdict` as a badge.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[BlockCell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Pictures:
    """Examples number[N, C, H, W] in units in which `lower` is black and `upper` white, with a line under each."""

    title: str
    x: NDArray[Any]
    captions: tuple[str, ...]
    lower: float = 0.0
    upper: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class DecisionTable:
    """The table of a gate decision that belongs to no run of the story: the model that was not scanned."""

    title: str
    decision: Ref


ChapterFigure = Comparison | Pictures | DecisionTable


@dataclass(frozen=True)
class Chapter:
    """One act: words, then what its run found. Facts are under the title, figures before the run's own parts."""

    title: str
    text: tuple[str, ...] = ()
    run: Path | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[ChapterFigure, ...] = ()
    ending: tuple[str, str, str] | None = None
    """How an act without a run ended, why, and which client requests failed."""


def write_report(run: Path, out: Path) -> Path:
    """Writes the page of one run folder to the file `out` and returns it.

    Raises:
        ArtifactError: the run or one of its artifacts cannot be read.
        IntegrityError: an artifact or a file of it is not the one that the run made.
    """
    record = read_run(run).record
    return _write(f"{record.workload}: report of a run", [Chapter(f"Run of {record.workload}", run=run)], out)


def write_story(title: str, chapters: Sequence[Chapter], out: Path) -> Path:
    """Writes several runs as one page to the file `out` and returns it.

    Raises:
        ArtifactError: a run or one of its artifacts cannot be read.
        IntegrityError: an artifact or a file of it is not the one that its run made.
    """
    return _write(title, chapters, out)


def _write(title: str, chapters: Sequence[Chapter], out: Path) -> Path:
    place = PageLocation(out)
    articles = [_article(f"act-{index}", chapter, place) for index, chapter in enumerate(chapters, start=1)]
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, render(title, articles, motto=MOTTO, footer=FOOTER).encode())
    return out


def _article(key: str, chapter: Chapter, place: PageLocation) -> Article:
    extras = tuple(_extra(f"extra-{index}", figure) for index, figure in enumerate(chapter.figures, start=1))
    facts = tuple((name, value) for name, value in chapter.facts.items())
    outcome, why, failed = chapter.ending or (None, None, None)
    row = (chapter.title, badge(outcome) if outcome else None, None, why, failed)
    article = Article(key, chapter.title, extras, text=chapter.text, facts=Facts(facts), row=row, outcome=outcome)
    if chapter.run is None:
        return article
    run = read_run(chapter.run)
    found = tuple(section for part in SECTIONS if (section := part(run, place)))
    return replace(
        article,
        outcome=run.record.outcome,
        alert=_alert(run),
        facts=Facts((*_head(run), *facts)),
        drawing=(draw(_nodes(run)), draw(_nodes(run), upright=True)),
        sections=(*extras, *found),
        missing=_missing(run),
        row=_row(chapter.title, run),
    )


def _alert(run: LoadedRun) -> str:
    """Why there is no model, in one line; empty where there is one."""
    found = judgement.shortfalls(run)
    if not found:
        return ""
    more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{run.record.outcome.capitalize()}: {found[0].sentence}{more}. What to do: {found[0].advice}"


def _head(run: LoadedRun) -> Iterator[tuple[str, BlockCell]]:
    record = run.record
    yield "workload", record.workload
    yield "model version", _version(run)
    yield "seed", record.seed
    if any(step.seconds for step in record.steps):
        yield "time in steps", seconds(sum(step.seconds for step in record.steps if not step.reused))
    if record.stopped_at:
        yield "stopped at", code(record.stopped_at)
    if record.retried:
        yield "rollout tried again after", "; ".join(record.retried)


def _version(run: LoadedRun) -> BlockCell:
    registered = run.document(Registration)
    return registered.model_version if registered else run.record.model_version


def _row(title: str, run: LoadedRun) -> tuple[BlockCell, ...]:
    rollout = run.document(RolloutRecord)
    traffic = f"{rollout.requests_failed} of {rollout.requests_sent}" if rollout else None
    return title, badge(run.record.outcome), _version(run), _why(run), traffic


def _why(run: LoadedRun) -> str:
    rollout, decision = run.document(RolloutRecord), run.document(GateDecision)
    if rollout:
        return rollout.reason
    if decision and run.record.outcome == "refused":
        return "gate: " + ", ".join(check.name for check in decision.counting if check.verdict is decision.verdict)
    if run.record.outcome == "stopped":
        return f"{_stopper(run)} stopped it before training"
    if run.record.stopped_at:
        return f"step {run.record.stopped_at} failed"
    return "passed the gate" if decision else ""


def _nodes(run: LoadedRun) -> dict[str, Node]:
    return {name: _node(name, run, step) for name in KINDS if (step := run.step(name))}


def _node(name: str, run: LoadedRun, step: StepRecord) -> Node:
    artifact = run.artifacts.get(name)
    if artifact is None:
        failed = run.record.outcome == "failed" and run.record.stopped_at in (None, name)
        return Node("fail", step.seconds) if failed else Node("idle")
    states: dict[str | None, NodeState] = {"pass": "pass", "inconclusive": "inconclusive"}
    state = states.get(run.verdict(name), "fail")
    return Node(state, step.seconds, step.reused, judges=hasattr(artifact.document, "verdict"))


def _missing(run: LoadedRun) -> str:
    """What to say about the steps that were not carried out, and why."""
    steps = [name for name in KINDS if name in names() or name in run.artifacts]
    end = max((steps.index(name) for name in run.artifacts), default=-1) + 1
    skipped = [name for name in steps[:end] if name not in run.artifacts]
    words = [f"Not part of this run: {', '.join(skipped)}."] if skipped else []
    if steps[end:] and run.record.outcome in ("promoted", "registered"):
        words.append(f"Not run: {', '.join(steps[end:])}.")
    elif steps[end:]:
        words.append(f"Not run: {', '.join(steps[end:])}. {_because(run)}.")
    return " ".join(words)


def _because(run: LoadedRun) -> str:
    stopped = run.record.stopped_at
    reasons = {
        "stopped": f"{_stopper(run)} stopped this delivery before training",
        "refused": "The gate refused this model, so it was neither registered nor rolled out",
        "failed": f"The run failed{f' in step {stopped}' if stopped else ''}",
    }
    return reasons.get(run.record.outcome, "They are not part of this run")


def _stopper(run: LoadedRun) -> str:
    failed = [step.name for step in STEPS if step.stops_delivery and run.verdict(step.name) == Verdict.FAIL]
    if len(failed) == 1:
        return f"The {failed[0]} check"
    return f"The {' and '.join(failed)} checks" if failed else f"Step {run.record.stopped_at}"


def _extra(key: str, figure: ChapterFigure) -> PageSection:
    if isinstance(figure, DecisionTable):
        decision = load(figure.decision, GateDecision)
        return PageSection(key, figure.title, judgement.decision_blocks(decision), decision.document.verdict.value)
    block: Block = _comparison(figure) if isinstance(figure, Comparison) else _gallery(figure)
    return PageSection(key, figure.title, (block,))


def _comparison(figure: Comparison) -> TableBlock:
    numeric = tuple(
        index
        for index in range(1, len(figure.columns) + 1)
        if any(isinstance(row[index], Count) for row in figure.rows)
    )
    return TableBlock(("", *figure.columns), figure.rows, numeric, figure.note)


def _gallery(figure: Pictures) -> Gallery:
    shown = zip(figure.x, figure.captions, strict=True)
    items = tuple(Picture(example_uri(np.asarray(x), figure.lower, figure.upper), words, "") for x, words in shown)
    return Gallery("", items, figure.note)


__all__ = ["Chapter", "Comparison", "DecisionTable", "Pictures", "write_report", "write_story"]
