"""The sections on the verdict and on live traffic, and the chain of digests that ties them to bytes."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.artifacts.documents import Check, GateDecision, RolloutRecord, Transition
from holdfast.artifacts.folder import Artifact
from holdfast.errors import ArtifactError
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
from holdfast_pipelines.report.evidence import KINDS, Run, read_json
from holdfast_pipelines.report.numbers import number, percent, seconds, short, span
from holdfast_pipelines.report.plots import Axis, Mark, Panel, Series, Stack, Tone, share_axis, stacked_chart

ENDS = {"rolledback": "rolled back", "rollingback": "rolled back", "promoted": "promoted", "promoting": "promoted"}
_E_LOW, _E_HIGH = 1e-2, 1e6
"""Where the axis of e-values ends; what lies beyond is drawn at the edge."""
_WINDOWS = 36
"""Rates are taken over about this many windows of a rollout."""


def gate(run: Run, place: Place) -> Section | None:
    """The verdict on the model."""
    artifact = run.artifact(GateDecision)
    if artifact is None:
        return None
    return Section("gate", "Gate", decision_blocks(artifact), artifact.document.verdict.value)


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
    ended = Prose(f"{record.outcome.replace('-', ' ').capitalize()}: {record.reason}")
    blocks = (Facts(tuple(facts)), ended, *_timeline(artifact), _transitions(record))
    return Section("rollout", "Rollout", blocks, record.outcome)


def chain(run: Run, place: Place) -> Section:
    """The digests of every artifact and of what it was made from."""
    known = {artifact.digest: step for step, artifact in run.artifacts.items()}
    rows = tuple(_chain_row(step, artifact, known) for step, artifact in run.artifacts.items())
    words = (
        "Each artifact pins its files and its inputs by SHA-256. What is shown here was checked when it was read; "
        "the command checks everything, back to the data."
    )
    table = Table(("step", "artifact (sha256 of artifact.json)", "made from"), rows)
    command = Facts((("how to verify", code(f"holdfast verify {_last(run)}")),))
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
    rows = read_json(artifact, "timeline.json")
    if not rows or len(rows) < 2:
        return []
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "t" in row for row in rows):
        raise ArtifactError(f"{artifact.folder / 'timeline.json'}: expected rows with a time t, found something else")
    origin = float(rows[0]["t"])
    rows = [{**row, "t": float(row["t"]) - origin} for row in rows]
    moment = _moment(rows)
    stack = Stack(
        "Traffic, failures and evidence over time",
        f"{artifact.document.outcome}: {artifact.document.reason}",
        Axis("seconds since the rollout began", 0.0, max(rows[-1]["t"], 1e-6)),
        tuple(panel for panel in (_weight(rows), _rates(rows), _slow(rows), _evidence(rows)) if panel),
        _states(rows),
        moment,
    )
    when = f" {moment.word.capitalize()} after {seconds(moment.x)}." if moment else ""
    window = seconds(rows[-1]["t"] / min(_WINDOWS, len(rows)))
    note = f"Rates over windows of about {window}; e-values on a log scale, cut at the edges.{when}"
    return [Figures((Figure("Traffic, failures and evidence over time", stacked_chart(stack), note),), size="wide")]


def _weight(rows: Sequence[Mapping[str, Any]]) -> Panel | None:
    if not all("weight" in row for row in rows):
        return None
    points = tuple((row["t"], float(row["weight"])) for row in rows)
    axis = Axis("live traffic on the candidate", 0.0, 100.0, show=lambda value: f"{number(value)} %", at=(0, 50, 100))
    return Panel(axis, (Series("candidate", points, "b", marks=False, step=True),), height=84, area=True)


def _rates(rows: Sequence[Mapping[str, Any]]) -> Panel | None:
    return _rate_panel(
        "failed answers",
        _windowed(rows, "candidate_errors", "candidate_requests"),
        _windowed(rows, "champion_errors", "champion_requests"),
    )


def _slow(rows: Sequence[Mapping[str, Any]]) -> Panel | None:
    return _rate_panel(
        "slow answers",
        _windowed(rows, "slow_candidate", "candidate_requests"),
        _windowed(rows, "slow_champion", "champion_requests"),
    )


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


def _evidence(rows: Sequence[Mapping[str, Any]]) -> Panel | None:
    named: tuple[tuple[str, str, Tone], ...] = (
        ("errors", "e_errors", "a"),
        ("slow", "e_slow", "b"),
        ("disagreement", "e_disagreement", "c"),
    )
    lines = [
        (name, tone, [(row["t"], float(row[key])) for row in rows if row.get(key) is not None])
        for name, key, tone in named
    ]
    series = tuple(Series(name, tuple(points), tone, marks=False) for name, tone, points in lines if points)
    if not series:
        return None
    values = [y for one in series for _, y in one.points]
    axis = Axis(
        "e-values against the candidate",
        max(min([*values, 0.1]), _E_LOW),
        min(max([*values, 1e3]), _E_HIGH),
        show=_power,
        log=True,
    )
    return Panel(axis, series, height=110)


def _power(value: float) -> str:
    return f"{value:g}" if 1e-3 <= value <= 1e4 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


def _windowed(rows: Sequence[Mapping[str, Any]], bad: str, total: str) -> list[tuple[float, float]]:
    """Rate of `bad` in `total` over windows, both counted since the start; a window without answers has none."""
    if not all(bad in row and total in row for row in rows):
        return []
    every = max(1, len(rows) // _WINDOWS)
    kept = [*rows[::every], rows[-1]]
    return [
        (after["t"], min(max((after[bad] - before[bad]) / (after[total] - before[total]), 0.0), 1.0))
        for before, after in itertools.pairwise(kept)
        if after[total] > before[total]
    ]


def _states(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, float, str], ...]:
    groups = [
        (str(state), list(group)) for state, group in itertools.groupby(rows, key=lambda row: row.get("state", ""))
    ]
    starts = [group[0]["t"] for _, group in groups] + [rows[-1]["t"]]
    return tuple((starts[i], starts[i + 1], state) for i, (state, _) in enumerate(groups))


def _moment(rows: Sequence[Mapping[str, Any]]) -> Mark | None:
    for row in rows:
        word = ENDS.get("".join(letter for letter in str(row.get("state", "")).lower() if letter.isalpha()))
        if word:
            return Mark(row["t"], word, loud=True)
    return None


def _chain_row(step: str, artifact: Artifact[Any], known: Mapping[str, str]) -> tuple[Cell, ...]:
    inputs = [
        f"{role} {short(digest)}{_from(role, known.get(digest))}"
        for role, digest in sorted(artifact.document.inputs.items())
    ]
    return step, code(artifact.digest), ", ".join(inputs) or "–"


def _from(role: str, step: str | None) -> str:
    return "" if step is None or step == role else f" ({step})"


def _last(run: Run) -> str:
    done = [step for step in KINDS if step in run.artifacts]
    record = run.step(done[-1]) if done else None
    return f"{run.folder.name}/{record.folder}" if record else run.folder.name
