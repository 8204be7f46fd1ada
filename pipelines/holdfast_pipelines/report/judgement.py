"""The sections on the verdict and on live traffic, and the chain of digests that ties them to bytes."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.artifacts.documents import Check, GateDecision, RolloutRecord, Transition
from holdfast.artifacts.folder import Artifact
from holdfast.steps import writer
from holdfast_pipelines.report.blocks import (
    Block,
    Cell,
    Facts,
    Figure,
    Figures,
    Place,
    Prose,
    Section,
    Table,
    code,
    pairs,
)
from holdfast_pipelines.report.evidence import KINDS, Run, Sample, read_timeline
from holdfast_pipelines.report.numbers import number, percent, seconds, short, span
from holdfast_pipelines.report.plots import Axis, Mark, Panel, Series, Stack, Tone, share_axis, stacked_chart

ENDS = {"RollingBack": "rolled back", "RolledBack": "rolled back", "Promoted": "promoted", "Inconclusive": "taken back"}
"""States in which the traffic has its last place, and the word for the moment."""
_E_LOW, _E_HIGH = 1e-2, 1e6
"""Where the axis of e-values ends; what lies beyond is drawn at the edge."""
_WINDOWS = 36
"""Rates are taken over about this many windows of a rollout."""


def gate(run: Run, place: Place) -> Section | None:
    """The verdict on the model."""
    artifact = run.artifact(GateDecision)
    if artifact is None:
        return None
    return Section(writer(GateDecision).name, "Gate", decision_blocks(artifact), artifact.document.verdict.value)


def decision_blocks(artifact: Artifact[GateDecision]) -> tuple[Block, ...]:
    """A gate decision as facts and its table."""
    decision = artifact.document
    facts = pairs(
        model=decision.name,
        policy=decision.policy_name,
        policy_digest=code(short(decision.policy), decision.policy),
        alpha=decision.alpha,
        waivers=", ".join(decision.waivers) or "none",
    )
    head = ("check", "verdict", "measured", "interval", "required", "champion", "reason")
    bounds = f"Intervals: one-sided bounds at alpha {number(decision.alpha)}, Clopper-Pearson, for paired checks Tango."
    rows = tuple(_check_row(check) for check in decision.checks)
    return Facts(facts), Table(head, rows, numeric=(2, 3, 5), note=f"{bounds} The worst check decides.")


def rollout(run: Run, place: Place) -> Section | None:
    """What happened on live traffic."""
    artifact = run.artifact(RolloutRecord)
    if artifact is None:
        return None
    record = artifact.document
    facts: list[tuple[str, Cell]] = [
        ("candidate", f"version {record.candidate_version}"),
        ("champion", f"version {record.champion_version}" if record.champion_version else "none yet"),
        ("requests sent", record.requests_sent),
        ("client requests failed", record.requests_failed),
    ]
    rolled = [
        one.evidence["seconds_to_rollback"] for one in record.transitions if "seconds_to_rollback" in one.evidence
    ]
    if rolled:
        facts.append(("fault to rollback", seconds(rolled[-1])))
    if "incident.html" in record.files:
        facts.append(("incident", place.link(artifact.path("incident.html"), "incident report")))
    if record.outcome != "promoted":
        facts.append(("cause", f"{record.cause}: {record.cause.words}"))
    ended = Prose(f"{record.outcome.replace('-', ' ').capitalize()}: {record.reason}")
    blocks = (Facts(tuple(facts)), ended, *_timeline(artifact), _transitions(record))
    return Section(writer(RolloutRecord).name, "Rollout", blocks, record.outcome)


def chain(run: Run, place: Place) -> Section:
    """The digests of every artifact and of what it was made from."""
    known = {artifact.digest: step for step, artifact in run.artifacts.items()}
    rows = tuple(_chain_row(step, artifact, known) for step, artifact in run.artifacts.items())
    words = (
        "Each artifact pins its files and its inputs by SHA-256. What is shown here was checked when it was read; "
        "the command checks everything, back to the data."
    )
    table = Table(("step", "artifact (sha256 of artifact.json)", "made from"), rows)
    command = Facts((("how to verify, from this page's folder", code(f"holdfast verify {place.path(_last(run))}")),))
    return Section("chain", "Chain of evidence", (Prose(words), command, table))


def _check_row(check: Check) -> tuple[Cell, ...]:
    rate = check.count is not None
    paired = not rate and check.lower is not None
    champion = None if check.champion is None else percent(check.champion)
    return (
        code(check.name),
        check.verdict,
        _measured(check, paired),
        _bounds(check, paired),
        check.required,
        champion,
        check.reason,
    )


def _measured(check: Check, paired: bool) -> Cell:
    if check.measured is None:
        return None
    if check.count is not None:
        return f"{percent(check.measured)} ({check.count.k} of {check.count.n})"
    return f"{100 * check.measured:+.1f} points" if paired else number(check.measured)


def _bounds(check: Check, paired: bool) -> Cell:
    if check.lower is None and check.upper is None:
        return None
    if check.lower is None or check.upper is None:
        return f"≥ {percent(check.lower)}" if check.lower is not None else f"≤ {percent(check.upper or 0.0)}"
    if paired:
        return f"[{100 * check.lower:+.1f}, {100 * check.upper:+.1f}] points"
    return f"{span(check.lower, check.upper)} %"


def _transitions(record: RolloutRecord) -> Table:
    head = ("from", "to", "traffic", "candidate failed", "champion failed", "reason", "evidence")
    return Table(head, tuple(_transition(one) for one in record.transitions), numeric=(2, 3, 4))


def _transition(one: Transition) -> tuple[Cell, ...]:
    evidence = ", ".join(f"{name} {number(value)}" for name, value in sorted(one.evidence.items()))
    candidate, champion = (f"{count.k} of {count.n}" for count in (one.candidate, one.champion))
    return one.state_before, one.state_after, f"{one.weight} %", candidate, champion, one.reason, evidence


def _timeline(artifact: Artifact[RolloutRecord]) -> list[Block]:
    rows = read_timeline(artifact)
    if len(rows) < 2:
        return []
    moment = _moment(rows)
    first, last = rows[0].t, rows[-1].t
    stack = Stack(
        "Traffic, failures and evidence over time",
        f"{artifact.document.outcome}: {artifact.document.reason}",
        Axis("seconds since the rollout began", min(first, 0.0), max(last, first + 1e-6)),
        tuple(panel for panel in (part(rows) for part in _PANELS) if panel),
        _states(rows),
        moment,
    )
    when = f" {moment.word.capitalize()} after {seconds(moment.x)}." if moment else ""
    note = f"Rates over windows of about {seconds((last - first) / min(_WINDOWS, len(rows)))}; "
    note += f"e-values on a log scale, cut at the edges.{when}"
    return [Figures((Figure(stack.title, stacked_chart(stack), note),), size="wide")]


def _weight(rows: Sequence[Sample]) -> Panel:
    points = tuple((row.t, float(row.weight)) for row in rows)
    axis = Axis("live traffic on the candidate", 0.0, 100.0, show=lambda value: f"{number(value)} %", at=(0, 50, 100))
    return Panel(axis, (Series("candidate", points, "b", marks=False, step=True),), height=84, area=True)


def _failed(rows: Sequence[Sample]) -> Panel | None:
    candidate = _windowed([(row.t, row.candidate_errors, row.candidate_requests) for row in rows])
    champion = _windowed([(row.t, row.champion_errors, row.champion_requests) for row in rows])
    return _rate_panel("failed answers", candidate, champion)


def _slow(rows: Sequence[Sample]) -> Panel | None:
    candidate = _windowed([(row.t, row.slow_candidate, row.candidate_requests) for row in rows])
    champion = _windowed([(row.t, row.slow_champion, row.champion_requests) for row in rows])
    return _rate_panel("slow answers", candidate, champion)


def _rate_panel(
    word: str, candidate: Sequence[tuple[float, float]], champion: Sequence[tuple[float, float]]
) -> Panel | None:
    if not candidate and not champion:
        return None
    most = max(y for _, y in (*candidate, *champion))
    lines: tuple[tuple[str, Tone, Sequence[tuple[float, float]]], ...] = (
        ("champion", "a", champion),
        ("candidate", "b", candidate),
    )
    series = tuple(Series(name, tuple(points), tone, marks=False) for name, tone, points in lines if points)
    return Panel(share_axis(word, min(max(most * 1.15, 0.05), 0.999), about=3), series, height=84)


def _answers(rows: Sequence[Sample]) -> Panel | None:
    """Tests on failures and on slowness."""
    lines: tuple[tuple[str, Tone, tuple[float, ...]], ...] = (
        ("errors", "a", tuple(row.e_errors for row in rows)),
        ("slow", "b", tuple(row.e_slow for row in rows)),
    )
    return _evidence("e-values against its answers", rows, lines)


def _predictions(rows: Sequence[Sample]) -> Panel | None:
    """Tests on what the candidate says, beside the champion; none where nobody sent the same row to both."""
    lines: tuple[tuple[str, Tone, tuple[float, ...]], ...] = (
        ("disagreement", "a", tuple(row.e_disagreement for row in rows)),
        ("drift", "b", tuple(row.e_drift for row in rows)),
        ("attack", "c", tuple(row.e_attack for row in rows)),
    )
    told = tuple(line for line in lines if any(value != 1.0 for value in line[2]))
    return _evidence("e-values against its predictions", rows, told) if told else None


def _evidence(label: str, rows: Sequence[Sample], lines: Sequence[tuple[str, Tone, tuple[float, ...]]]) -> Panel:
    times = [row.t for row in rows]
    series = tuple(
        Series(name, tuple(zip(times, values, strict=True)), tone, marks=False) for name, tone, values in lines
    )
    found = [value for _, _, values in lines for value in values]
    low, high = max(min(*found, 0.1), _E_LOW), min(max(*found, 1e3), _E_HIGH)
    return Panel(Axis(label, low, high, show=_power, log=True), series, height=110)


def _power(value: float) -> str:
    return f"{value:g}" if 1e-3 <= value <= 1e4 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


_PANELS = (_weight, _failed, _slow, _answers, _predictions)


def _windowed(rows: Sequence[tuple[float, int, int]]) -> list[tuple[float, float]]:
    """(time, rate) over windows, of (time, bad ones so far, all so far); a window without answers has no rate."""
    kept = [*rows[:: max(1, len(rows) // _WINDOWS)], rows[-1]]
    return [
        (after[0], min(max((after[1] - before[1]) / (after[2] - before[2]), 0.0), 1.0))
        for before, after in itertools.pairwise(kept)
        if after[2] > before[2]
    ]


def _states(rows: Sequence[Sample]) -> tuple[tuple[float, float, str], ...]:
    groups = [(state, list(group)) for state, group in itertools.groupby(rows, key=lambda row: row.state)]
    starts = [group[0].t for _, group in groups] + [rows[-1].t]
    return tuple((starts[i], starts[i + 1], state) for i, (state, _) in enumerate(groups))


def _moment(rows: Sequence[Sample]) -> Mark | None:
    for row in rows:
        if row.state in ENDS:
            return Mark(row.t, ENDS[row.state], loud=True)
    return None


def _chain_row(step: str, artifact: Artifact[Any], known: Mapping[str, str]) -> tuple[Cell, ...]:
    inputs = [
        f"{role} {short(digest)}{_from(role, known.get(digest))}"
        for role, digest in sorted(artifact.document.inputs.items())
    ]
    return step, code(artifact.digest), ", ".join(inputs) or "–"


def _from(role: str, step: str | None) -> str:
    return "" if step is None or step == role else f" ({step})"


def _last(run: Run) -> Path:
    """The folder of the last artifact."""
    done = [step for step in KINDS if step in run.artifacts]
    return run.artifacts[done[-1]].folder if done else run.folder
