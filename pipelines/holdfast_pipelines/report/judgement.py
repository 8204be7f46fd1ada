"""The sections on the verdict and on live traffic."""

from collections.abc import Iterator

from holdfast.artifacts.documents import Check, GateDecision, RolloutRecord, Transition
from holdfast.artifacts.folder import Artifact
from holdfast.rendering.blocks import (
    Block,
    BlockCell,
    Facts,
    PageLocation,
    PageSection,
    Prose,
    TableBlock,
    code,
    pairs,
)
from holdfast.rendering.numbers import number, percent, seconds, short, span
from holdfast.rendering.rollout_chart import traffic
from holdfast.steps import writer
from holdfast_gates.measurement import in_words
from holdfast_gates.shortfalls import Shortfall
from holdfast_pipelines import ending
from holdfast_pipelines.report.evidence import LoadedRun, read_timeline


def shortfalls(run: LoadedRun) -> tuple[Shortfall, ...]:
    """The checks that ended the run without a model, in the words of the terminal's last lines."""
    return ending.shortfalls(run.record.outcome, [found.document for found in run.artifacts.values()])


def decided(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """Which checks did not pass, and what to do: the first part of the page of a run that ended without a model."""
    found = shortfalls(run)
    if not found:
        return None
    head = ("check", "verdict", "measured", "required", "found", "what to do")
    rows = tuple((code(one.check), one.verdict, one.measured, one.required, one.found, one.advice) for one in found)
    return PageSection("decided", "What decided", (TableBlock(head, rows),))


def gate(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """The verdict on the model."""
    artifact = run.artifact(GateDecision)
    if artifact is None:
        return None
    return PageSection(writer(GateDecision).name, "Gate", decision_blocks(artifact), artifact.document.verdict.value)


def decision_blocks(artifact: Artifact[GateDecision]) -> tuple[Block, ...]:
    """A gate decision as facts and its table."""
    decision = artifact.document
    facts = pairs(
        model=decision.name,
        policy=decision.policy_name,
        policy_digest=code(short(decision.policy), decision.policy),
        alpha=decision.alpha,
        waivers=", ".join(one.check for one in decision.waivers) or "none",
    )
    head = ("check", "verdict", "measured", "interval", "required", "champion", "reason")
    bounds = f"Intervals: one-sided bounds at alpha {number(decision.alpha)}, Clopper-Pearson, for paired checks Tango."
    waived = {one.check for one in decision.waivers}
    rows = tuple(_check_row(check, waived=check.name in waived) for check in decision.checks)
    table = TableBlock(head, rows, numeric=(2, 3, 5), note=f"{bounds} The worst check that was not waived decides.")
    return Facts(facts), table, *_waivers(decision), *_measured_with(decision)


def _waivers(decision: GateDecision) -> Iterator[Block]:
    """Who waived what, and which waivers do not count."""
    if decision.waivers:
        rows = tuple((code(one.check), one.owner, one.until, one.reason) for one in decision.waivers)
        yield TableBlock(("waived", "by", "until", "reason"), rows)
    if decision.waivers_not_counted:
        yield TableBlock(("waivers that do not count",), tuple((why,) for why in decision.waivers_not_counted))


def _measured_with(decision: GateDecision) -> tuple[Block, ...]:
    """The settings of the evidence, with what the policy asks of them."""
    rows = tuple((code(one.name), in_words(one.measured), one.required or "nothing") for one in decision.measured_with)
    table = TableBlock(("setting", "measured with", "asked"), rows, note="How the evidence was measured.")
    return (table,) if rows else ()


def rollout(run: LoadedRun, place: PageLocation) -> PageSection | None:
    """What happened on live traffic."""
    artifact = run.artifact(RolloutRecord)
    if artifact is None:
        return None
    record = artifact.document
    facts: list[tuple[str, BlockCell]] = [
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
    chart = traffic(read_timeline(artifact), f"{record.outcome}: {record.reason}")
    blocks: tuple[Block, ...] = (Facts(tuple(facts)), ended, *chart, _transitions(record))
    return PageSection(writer(RolloutRecord).name, "Rollout", blocks, record.outcome)


def _check_row(check: Check, *, waived: bool) -> tuple[BlockCell, ...]:
    rate = check.count is not None
    paired = not rate and check.lower is not None and check.champion is not None
    champion = None if check.champion is None else percent(check.champion)
    return (
        code(check.name),
        f"{check.verdict}, waived" if waived else check.verdict,
        _measured(check, paired),
        _bounds(check, paired),
        check.required,
        champion,
        check.reason,
    )


def _measured(check: Check, paired: bool) -> BlockCell:
    if check.measured is None:
        return None
    if check.count is not None:
        return f"{percent(check.measured)} ({check.count.k} of {check.count.n})"
    if paired:
        return f"{100 * check.measured:+.1f} points"
    return number(check.measured) if check.lower is None else percent(check.measured)


def _bounds(check: Check, paired: bool) -> BlockCell:
    if check.lower is None and check.upper is None:
        return None
    if check.lower is None or check.upper is None:
        return f"≥ {percent(check.lower)}" if check.lower is not None else f"≤ {percent(check.upper or 0.0)}"
    if paired:
        return f"[{100 * check.lower:+.1f}, {100 * check.upper:+.1f}] points"
    return f"{span(check.lower, check.upper)} %"


def _transitions(record: RolloutRecord) -> TableBlock:
    head = ("from", "to", "traffic", "candidate failed", "champion failed", "reason", "evidence")
    return TableBlock(head, tuple(_transition(one) for one in record.transitions), numeric=(2, 3, 4))


def _transition(one: Transition) -> tuple[BlockCell, ...]:
    evidence = ", ".join(f"{name} {number(value)}" for name, value in sorted(one.evidence.items()))
    candidate, champion = (f"{count.k} of {count.n}" for count in (one.candidate, one.champion))
    return one.state_before, one.state_after, f"{one.weight} %", candidate, champion, one.reason, evidence
