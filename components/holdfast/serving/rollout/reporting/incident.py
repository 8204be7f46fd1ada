"""The incident report of a rollback: what happened when, on what evidence, to which bytes, and what to do next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.artifacts.documents import RolloutRecord, Transition
from holdfast.artifacts.timeline import Sample
from holdfast.registry.notes import locks
from holdfast.serving.rollout.engine.analysis import ALPHA_SHARES, Limits
from holdfast.serving.rollout.reporting.ending import PLANTED
from holdfast.serving.rollout.reporting.status import armed, needed
from holdfast.wording import markdown_text

if TYPE_CHECKING:
    from markupsafe import Markup

    from holdfast.rendering.blocks import PageSection

RUNBOOK = "docs/runbooks/rollback.md"
_TIMELINE = ("second", "from", "to", "weight", "why")
_EVIDENCE = ("measure", "value", "ends it at")


@dataclass(frozen=True)
class Incident:
    """The facts of one rollback."""

    record: RolloutRecord
    digests: dict[str, str]
    """Role -> digest."""
    timeline: tuple[Sample, ...]
    limits: Limits
    game_day: str | None
    log: str
    """The end of the candidate's log."""

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.record.name} version {self.record.candidate_version} was taken out of traffic"

    @property
    def champion(self) -> str:
        """What serves now."""
        version = self.record.champion_version
        return f"version {version}" if version else "none yet, or this very version"

    @property
    def locked(self) -> bool:
        """Whether the same bytes are refused until the gate decides again."""
        return locks(self.record.outcome, self.record.cause, planted=self.game_day is not None)

    @property
    def compared(self) -> str:
        """What the candidate was compared with."""
        if self.record.champion_version:
            return f"The candidate's answers were compared with those of version {self.record.champion_version}."
        return _ALONE


_ALONE = (
    "There was no champion: the registry knows no other version that serves, so nothing was compared with an earlier "
    "model. Where the stable arm was a second server of this very version, a difference between the two is not the "
    "model's. What counted were the plan's absolute limits: the share of answers that fail, of slow answers and of "
    "attacks that succeed."
)


@dataclass(frozen=True)
class EvidenceLine:
    """One number of the decision, with what it would have needed."""

    name: str
    value: str
    needed: str
    over: bool = False


def markdown(incident: Incident) -> str:
    """The report as Markdown."""
    lines = [f"# {incident.title}", "", f"**Why:** {markdown_text(incident.record.reason)}", ""]
    if incident.game_day:
        lines += [f"**This was a game day:** the fault was planted on purpose (`{incident.game_day}`).", ""]
    lines += [*(f"- {name}: {value}" for name, value in _facts(incident)), "", incident.compared]
    lines += ["", "## What to do next", ""] + [f"{i}. {step}" for i, step in enumerate(next_steps(incident), start=1)]
    steps = [(*row[:-1], markdown_text(row[-1])) for row in _timeline(incident.record.transitions)]
    lines += ["", "## Timeline", "", *_table(_TIMELINE, steps)]
    rows = [(one.name, f"**{one.value}**" if one.over else one.value, one.needed) for one in evidence(incident)]
    lines += ["", "## Evidence at the decision", "", *_table(_EVIDENCE, rows)]
    lines += ["", "## Digests", ""] + [f"- {role}: `{digest}`" for role, digest in sorted(incident.digests.items())]
    lines += ["", "## End of the candidate's log", "", "```", incident.log.replace("```", "'''"), "```", ""]
    return "\n".join(lines)


def page(incident: Incident) -> str:
    """The report as one HTML file that needs nothing else."""
    from markupsafe import Markup

    from holdfast.rendering.blocks import Facts
    from holdfast.rendering.page import Article, render

    day = (f"This was a game day: {incident.game_day}",) if incident.game_day else ()
    article = Article(
        "incident",
        incident.title,
        _sections(incident),
        alert=Markup("<b>Why:</b> {}").format(incident.record.reason),
        text=(*day, incident.compared),
        outcome=incident.record.outcome,
        facts=Facts(tuple(_facts(incident)[1:])),
    )
    return render(incident.title, [article], motto="", footer="")


def _sections(incident: Incident) -> "tuple[PageSection, ...]":
    from holdfast.rendering.blocks import Output, PageSection, Prose, Steps, TableBlock, code
    from holdfast.rendering.rollout_chart import traffic

    chart = traffic(incident.timeline, incident.record.reason) or (Prose("There are not enough samples for a chart."),)
    digests = tuple((role, code(digest)) for role, digest in sorted(incident.digests.items()))
    return (
        PageSection("next", "What to do next", (Steps(tuple(map(_coded, next_steps(incident)))),)),
        PageSection("traffic", "Traffic", chart),
        PageSection("timeline", "Timeline", (TableBlock(_TIMELINE, _unbroken(incident.record.transitions), (0, 3)),)),
        PageSection("evidence", "Evidence at the decision", (TableBlock(_EVIDENCE, _evidence_rows(incident)),)),
        PageSection("digests", "Digests", (TableBlock(("role", "digest"), digests),)),
        PageSection("log", "End of the candidate's log", (Output(incident.log),)),
    )


def next_steps(incident: Incident) -> list[str]:
    """What the person on call does now."""
    sent, failed = incident.record.requests_sent, incident.record.requests_failed
    clients = "Nothing is needed for the clients" if failed == 0 else "Tell the clients whose requests failed"
    again = (
        "The same version is refused from now on: train or repair it, or let the gate judge new evidence, and register "
        "what passes."
        if incident.locked
        else "The same version may be rolled out again, as it is, once its cause is gone: "
        "the same command starts it, and this record is kept."
    )
    advice = PLANTED if incident.game_day else incident.record.cause.advice
    return [
        f"The cause was {incident.record.cause.words}. {advice}",
        f"{clients}: {failed} of {sent} requests failed. The champion ({incident.champion}) was not moved.",
        f"Go on with the runbook, {RUNBOOK}: it explains each reason.",
        "Read the candidate's log below, and `journal.jsonl` and `log.jsonl` in the folder of this report.",
        "Compare both versions on the requests of that time before blaming the model: the server, its memory and its "
        "host are as likely.",
        again,
    ]


def evidence(incident: Incident) -> list[EvidenceLine]:
    """The numbers of the transition into RollingBack, each with what it needed to end the rollout."""
    last = next((t for t in incident.record.transitions if t.state_after == "RollingBack"), None)
    if last is None:
        return []
    # How long the fault was in traffic is known only at the end.
    found, limits = {**incident.record.transitions[-1].evidence, **last.evidence}, incident.limits
    tests = [
        _test(name, found[f"e_{name}"], needed(name, limits.alpha))
        for name in ALPHA_SHARES
        if f"e_{name}" in found and armed(name, limits)
    ]
    bound = EvidenceLine(
        "failure share above the champion's, 95 % upper bound (Newcombe)",
        f"{found.get('error_bound', 1.0):.2%}",
        f"a promotion needs less than {limits.margin:.2%}",
    )
    return [*_counts(last), bound, *tests, *_rest(found)]


def _test(name: str, value: float, at: float) -> EvidenceLine:
    return EvidenceLine(f"e-value against the candidate: {name}", f"{value:.4g}", f"{at:.4g}", value >= at)


def _counts(last: Transition) -> list[EvidenceLine]:
    arms = (("candidate", last.candidate), ("champion", last.champion))
    return [EvidenceLine(f"{name}: failed of answered", f"{count.k} of {count.n}", "") for name, count in arms]


_PAIRS = {"disagreements": ("pairs", "paired answers that differ"), "fooled": ("attacks", "attack probes that succeed")}
_SINGLE = {
    "broken": "probes that only the candidate failed",
    "ejections": "ejections",
    "seconds_to_rollback": "seconds from the fault to weight 0",
}


def _rest(found: dict[str, float]) -> list[EvidenceLine]:
    """What the probes and the router counted."""
    rows = [
        EvidenceLine(words, f"{found[part]:g} of {found[whole]:g}", "")
        for part, (whole, words) in _PAIRS.items()
        if found.get(whole)
    ]
    return rows + [EvidenceLine(words, f"{found[name]:g}", "") for name, words in _SINGLE.items() if name in found]


def _facts(incident: Incident) -> list[tuple[str, str]]:
    record = incident.record
    return [
        ("outcome", record.outcome),
        ("cause", f"{record.cause}: {record.cause.words}"),
        ("the same bytes", "refused until the gate decides again" if incident.locked else "may be started again"),
        ("client requests", f"{record.requests_sent} sent, {record.requests_failed} failed"),
        ("champion", incident.champion),
        ("candidate", f"version {record.candidate_version}"),
    ]


def _timeline(transitions: Sequence[Transition]) -> list[tuple[str, ...]]:
    return [
        (f"{t.evidence.get('t', 0):.2f}", t.state_before, t.state_after, f"{t.weight} %", t.reason) for t in transitions
    ]


def _unbroken(transitions: Sequence[Transition]) -> tuple[tuple[str, ...], ...]:
    """The timeline with short cells that stay on one line."""
    rows = _timeline(transitions)
    return tuple((*(cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in row[:-1]), row[-1]) for row in rows)


def _coded(text: str) -> "Markup":
    """The words between backticks as code."""
    from markupsafe import Markup

    from holdfast.rendering.blocks import code

    return Markup("").join(code(part) if i % 2 else part for i, part in enumerate(text.split("`")))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _evidence_rows(incident: Incident) -> "tuple[tuple[Markup | str, ...], ...]":
    """The evidence as rows; what ended the rollout is marked."""
    from holdfast.rendering.svg import tag

    rows = ((one.over, (one.name, one.value, one.needed)) for one in evidence(incident))
    return tuple(tuple(tag("span", cell, class_="over") if over else cell for cell in cells) for over, cells in rows)
