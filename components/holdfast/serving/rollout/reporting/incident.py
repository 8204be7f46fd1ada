"""The incident report of a rollback: what happened when, on what evidence, to which bytes, and what to do next."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import Transition
from holdfast.registry.notes import locks
from holdfast.serving.rollout.engine.analysis import ALPHA_SHARES, Limits
from holdfast.serving.rollout.reporting.ending import PLANTED
from holdfast.serving.rollout.reporting.plot import STYLE, plot
from holdfast.serving.rollout.reporting.status import armed, needed
from holdfast.serving.rollout.reporting.timeline import Sample

RUNBOOK = "docs/runbooks/rollback.md"
_STYLE = (
    ":root{color-scheme:light dark;--ink:#1c2127;--soft:#5b6570;--line:#d9dee3;--page:#fff;--box:#f4f6f8;"
    "--alarm:#b3261e;--a:#1f5fa8;--b:#a35c00;--c:#2f7d4f}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#a3adb7;--line:#3a424a;--page:#14181c;--box:#1e242a;"
    "--alarm:#ff8a80;--a:#7db4f0;--b:#f0b35a;--c:#7fd3a0}}"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:var(--ink);background:var(--page)}h1{font-size:1.6rem;line-height:1.25}h2{font-size:1.15rem;margin-top:2rem}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid var(--line);padding:.35rem .8rem .35rem 0;"
    "text-align:left;vertical-align:top}td:last-child{overflow-wrap:anywhere}th{color:var(--soft);font-weight:600}"
    "td:first-child,th{white-space:nowrap}td:first-child{width:1%;padding-right:2rem}"
    "@media(max-width:40rem){td:first-child{white-space:normal;padding-right:.8rem}}"
    ".why{border-left:4px solid var(--alarm);background:var(--box);"
    "padding:.6rem .9rem}tr.over td{color:var(--alarm);font-weight:600}code,pre{font:13px/1.45 ui-monospace,monospace}"
    "pre{background:var(--box);padding:1rem;overflow:auto;max-height:30rem}" + STYLE
)


@dataclass(frozen=True)
class Incident:
    """The facts of one rollback."""

    name: str
    candidate_version: int
    champion_version: int | None
    outcome: str
    reason: str
    cause: Cause
    digests: dict[str, str]
    """Role -> digest."""
    sent: int
    failed: int
    transitions: tuple[Transition, ...]
    timeline: tuple[Sample, ...]
    limits: Limits
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

    @property
    def locked(self) -> bool:
        """Whether the same bytes are refused until the gate decides again."""
        return locks(self.outcome, self.cause, planted=self.game_day is not None)

    @property
    def compared(self) -> str:
        """What the candidate was compared with."""
        if self.champion_version:
            return f"The candidate's answers were compared with those of version {self.champion_version}."
        return _ALONE


_ALONE = (
    "There was no champion: the registry knows no other version that serves, so nothing was compared with an earlier "
    "model. Where the stable arm was a second server of this very version, a difference between the two is not the "
    "model's. What counted were the plan's absolute limits: the share of answers that fail, of slow answers and of "
    "attacks that succeed."
)


@dataclass(frozen=True)
class Evidence:
    """One number of the decision, with what it would have needed."""

    name: str
    value: str
    needed: str
    over: bool = False


def markdown(incident: Incident) -> str:
    """The report as Markdown."""
    lines = [f"# {incident.title}", "", f"**Why:** {incident.reason}", ""]
    if incident.game_day:
        lines += [f"**This was a game day:** the fault was planted on purpose (`{incident.game_day}`).", ""]
    lines += [f"- {name}: {value}" for name, value in _facts(incident)]
    lines += ["", incident.compared]
    lines += ["", "## What to do next", ""] + [f"{i}. {step}" for i, step in enumerate(next_steps(incident), start=1)]
    lines += ["", "## Timeline", "", "| second | from | to | weight | why |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in _timeline(incident.transitions)]
    lines += ["", "## Evidence at the decision", "", "| measure | value | ends it at |", "|---|---|---|"]
    lines += [f"| {one.name} | {_bold(one)} | {one.needed} |" for one in evidence(incident)]
    lines += ["", "## Digests", ""] + [f"- {role}: `{digest}`" for role, digest in sorted(incident.digests.items())]
    lines += ["", "## End of the candidate's log", "", "```", incident.log.replace("```", "'''"), "```", ""]
    return "\n".join(lines)


def page(incident: Incident) -> str:
    """The report as one HTML file that needs nothing else."""
    steps = "".join(f"<li>{_coded(step)}</li>" for step in next_steps(incident))
    day = f"<p><b>This was a game day:</b> {html.escape(incident.game_day)}</p>" if incident.game_day else ""
    parts = {
        "What to do next": f"<ol>{steps}</ol>",
        "Traffic": plot(incident.timeline),
        "Timeline": _table(("second", "from", "to", "weight", "why"), _unbroken(_timeline(incident.transitions))),
        "Evidence at the decision": _evidence_table(incident),
        "Digests": _table(("role", "digest"), sorted(incident.digests.items())),
        "End of the candidate's log": f"<pre>{html.escape(incident.log)}</pre>",
    }
    body = "".join(f"<h2>{name}</h2>{content}" for name, content in parts.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(incident.title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(incident.title)}</h1>"
        f'<p class="why"><b>Why:</b> {html.escape(incident.reason)}</p>{day}'
        f"{_table(('what', 'value'), _facts(incident))}<p>{html.escape(incident.compared)}</p>{body}</html>\n"
    )


def next_steps(incident: Incident) -> list[str]:
    """What the person on call does now."""
    clients = "Nothing is needed for the clients" if incident.failed == 0 else "Tell the clients whose requests failed"
    again = (
        "The same version is refused from now on: train or repair it, or let the gate judge new evidence, and register "
        "what passes."
        if incident.locked
        else "The same version may be rolled out again, as it is, once its cause is gone: "
        "the same command starts it, and this record is kept."
    )
    advice = PLANTED if incident.game_day else incident.cause.advice
    return [
        f"The cause was {incident.cause.words}. {advice}",
        f"{clients}: {incident.failed} of {incident.sent} requests failed. "
        f"The champion ({incident.champion}) was not moved.",
        f"Go on with the runbook, {RUNBOOK}: it says what each reason points at.",
        "Read the candidate's log below, and `journal.jsonl` and `log.jsonl` beside this report.",
        "Compare both versions on the requests of that time before blaming the model: the server, its memory and its "
        "host are as likely.",
        again,
    ]


def evidence(incident: Incident) -> list[Evidence]:
    """The numbers of the transition into RollingBack, each with what it needed to end the rollout."""
    last = next((t for t in incident.transitions if t.state_after == "RollingBack"), None)
    if last is None:
        return []
    # How long the fault was in traffic is known only at the end.
    found, limits = {**incident.transitions[-1].evidence, **last.evidence}, incident.limits
    tests = [
        _test(name, found[f"e_{name}"], needed(name, limits.alpha))
        for name in ALPHA_SHARES
        if f"e_{name}" in found and armed(name, limits)
    ]
    bound = Evidence(
        "failure share above the champion's, 95 % upper bound (Newcombe)",
        f"{found.get('error_bound', 1.0):.2%}",
        f"a promotion needs less than {limits.margin:.2%}",
    )
    return [*_counts(last), bound, *tests, *_rest(found)]


def _test(name: str, value: float, at: float) -> Evidence:
    return Evidence(f"e-value against the candidate: {name}", f"{value:.4g}", f"{at:.4g}", value >= at)


def _counts(last: Transition) -> list[Evidence]:
    arms = (("candidate", last.candidate), ("champion", last.champion))
    return [Evidence(f"{name}: failed of answered", f"{count.k} of {count.n}", "") for name, count in arms]


_PAIRS = {"disagreements": ("pairs", "paired answers that differ"), "fooled": ("attacks", "attack probes that succeed")}
_SINGLE = {
    "broken": "probes that only the candidate failed",
    "ejections": "ejections",
    "seconds_to_rollback": "seconds from the fault to weight 0",
}


def _rest(found: dict[str, float]) -> list[Evidence]:
    """What the probes and the router counted."""
    rows = [
        Evidence(words, f"{found[part]:g} of {found[whole]:g}", "")
        for part, (whole, words) in _PAIRS.items()
        if found.get(whole)
    ]
    return rows + [Evidence(words, f"{found[name]:g}", "") for name, words in _SINGLE.items() if name in found]


def _facts(incident: Incident) -> list[tuple[str, str]]:
    return [
        ("outcome", incident.outcome),
        ("cause", f"{incident.cause}: {incident.cause.words}"),
        ("the same bytes", "refused until the gate decides again" if incident.locked else "may be started again"),
        ("client requests", f"{incident.sent} sent, {incident.failed} failed"),
        ("champion", incident.champion),
        ("candidate", f"version {incident.candidate_version}"),
    ]


def _timeline(transitions: Sequence[Transition]) -> list[tuple[str, ...]]:
    return [
        (f"{t.evidence.get('t', 0):.2f}", t.state_before, t.state_after, f"{t.weight} %", t.reason) for t in transitions
    ]


def _unbroken(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Rows whose short cells stay on one line."""
    return [(*(cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in row[:-1]), row[-1]) for row in rows]


def _coded(text: str) -> str:
    """What stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def _bold(one: Evidence) -> str:
    return f"**{one.value}**" if one.over else one.value


def _evidence_table(incident: Incident) -> str:
    rows = "".join(
        f"<tr{' class=over' if one.over else ''}>" + "".join(_td(cell) for cell in (one.name, one.value, one.needed))
        for one in evidence(incident)
    )
    return f"<table><tr><th>measure</th><th>value</th><th>ends it at</th></tr>{rows}</table>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join("<tr>" + "".join(map(_td, row)) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + f"</tr>{cells}</table>"


def _td(cell: str) -> str:
    return f"<td>{html.escape(cell)}</td>"
