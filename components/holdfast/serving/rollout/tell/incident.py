"""The incident report of a rollback: what happened when, on what evidence, to which bytes, and what to do next."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.artifacts.documents import Transition
from holdfast.serving.rollout.tell.timeline import Sample

_WIDTH, _HEIGHT = 720, 180


@dataclass(frozen=True)
class Incident:
    """The facts of one rollback."""

    name: str
    candidate_version: int
    champion_version: int | None
    reason: str
    digests: dict[str, str]
    """Role -> digest."""
    sent: int
    failed: int
    transitions: tuple[Transition, ...]
    timeline: tuple[Sample, ...]
    game_day: str | None
    log: str
    """The end of the candidate's log."""

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.name} version {self.candidate_version} was taken out of traffic"

    @property
    def champion(self) -> str:
        """What serves now."""
        return f"version {self.champion_version}" if self.champion_version else "none yet, or this very version"


def markdown(incident: Incident) -> str:
    """The report as Markdown."""
    lines = [f"# {incident.title}", "", f"**Why:** {incident.reason}", ""]
    if incident.game_day:
        lines += [f"**This was a game day:** the fault was planted on purpose (`{incident.game_day}`).", ""]
    lines += [f"- {name}: {value}" for name, value in _facts(incident)]
    lines += ["", "## Timeline", "", "| second | from | to | weight | why |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(row).replace("\n", " ") + " |" for row in _timeline(incident.transitions)]
    lines += ["", "## Evidence at the decision", "", "| measure | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _evidence(incident.transitions)]
    lines += ["", "## Digests", ""] + [f"- {role}: `{digest}`" for role, digest in sorted(incident.digests.items())]
    lines += ["", "## What to do next", ""] + [f"{i}. {step}" for i, step in enumerate(next_steps(incident), start=1)]
    lines += ["", "## End of the candidate's log", "", "```", incident.log.replace("```", "'''"), "```", ""]
    return "\n".join(lines)


def page(incident: Incident) -> str:
    """The report as one HTML file that needs nothing else."""
    facts = _table(("what", "value"), _facts(incident))
    timeline = _table(("second", "from", "to", "weight", "why"), _timeline(incident.transitions))
    steps = "".join(f"<li>{html.escape(step)}</li>" for step in next_steps(incident))
    digests = _table(("role", "digest"), sorted(incident.digests.items()))
    day = f"<p><b>This was a game day:</b> {html.escape(incident.game_day)}</p>" if incident.game_day else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(incident.title)}</title>'
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
        "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.2rem .5rem;text-align:left}"
        "pre{background:#f5f5f5;padding:1rem;overflow:auto}</style>"
        f"<h1>{html.escape(incident.title)}</h1><p><b>Why:</b> {html.escape(incident.reason)}</p>{day}{facts}"
        f"<h2>Traffic</h2>{_plot(incident.timeline)}<h2>Timeline</h2>{timeline}"
        f"<h2>Evidence at the decision</h2>{_table(('measure', 'value'), _evidence(incident.transitions))}"
        f"<h2>Digests</h2>{digests}<h2>What to do next</h2><ol>{steps}</ol>"
        f"<h2>End of the candidate's log</h2><pre>{html.escape(incident.log)}</pre></html>\n"
    )


def next_steps(incident: Incident) -> list[str]:
    """What the person on call does now."""
    clients = "Nothing is needed for the clients" if incident.failed == 0 else "Tell the clients whose requests failed"
    return [
        f"{clients}: {incident.failed} of {incident.sent} requests failed. "
        f"The champion ({incident.champion}) was not moved.",
        "Read the candidate's log below and `journal.jsonl` beside this report.",
        "Compare both versions on the requests of that time before blaming the model: the server, its memory and its "
        "host are as likely.",
        "Do not roll out the same version again without a new gate decision; train or repair, and let the gate judge.",
    ]


def _facts(incident: Incident) -> list[tuple[str, str]]:
    return [
        ("client requests", f"{incident.sent} sent, {incident.failed} failed"),
        ("champion", incident.champion),
        ("candidate", f"version {incident.candidate_version}"),
    ]


def _timeline(transitions: Sequence[Transition]) -> list[tuple[str, ...]]:
    return [
        (f"{t.evidence.get('t', 0):.2f}", t.state_before, t.state_after, f"{t.weight} %", t.reason) for t in transitions
    ]


def _evidence(transitions: Sequence[Transition]) -> list[tuple[str, str]]:
    """The numbers of the transition into RollingBack."""
    last = next((t for t in transitions if t.state_after == "RollingBack"), None)
    if last is None:
        return []
    counts = [
        ("candidate: failed of answered", f"{last.candidate.k} of {last.candidate.n}"),
        ("champion: failed of answered", f"{last.champion.k} of {last.champion.n}"),
    ]
    return counts + [(name, f"{value:g}") for name, value in last.evidence.items()]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + f"</tr>{cells}</table>"


def _plot(timeline: Sequence[Sample]) -> str:
    """Weight (line), and the shares of disagreement and of slow candidate answers, over time."""
    if len(timeline) < 2:
        return ""
    end = max(sample["t"] for sample in timeline) or 1.0
    series = {
        "weight": ("#1f5fa8", [sample["weight"] / 100 for sample in timeline]),
        "disagreement": ("#c0392b", [sample["disagreement"] for sample in timeline]),
        "slow": (
            "#e08e0b",
            [sample["slow_candidate"] / max(sample["candidate_requests"], 1) for sample in timeline],
        ),
    }
    lines = "".join(
        f'<polyline fill="none" stroke="{color}" stroke-width="2" points="'
        + " ".join(
            f"{s['t'] / end * _WIDTH:.1f},{_HEIGHT - v * _HEIGHT:.1f}" for s, v in zip(timeline, values, strict=True)
        )
        + '"/>'
        for color, values in series.values()
    )
    names = ", ".join(f'<span style="color:{color}">{name}</span>' for name, (color, _) in series.items())
    return (
        f'<svg viewBox="-5 -5 {_WIDTH + 10} {_HEIGHT + 10}" width="{_WIDTH}" role="img" '
        f'aria-label="traffic over time">{lines}</svg><p>Shares from 0 to 1 over {end:.1f} s: {names}</p>'
    )
