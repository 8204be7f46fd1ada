"""The last lines on the terminal of a run: how it ended, which checks decided, and what to do."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from holdfast.artifacts.documents import Document, DriftReport, GateDecision, RolloutRecord, SchemaReport, Verdict
from holdfast.serving.rollout.reporting import ending
from holdfast.steps import writer
from holdfast.wording import printable
from holdfast_gates.champion import NEW_CONTRACT
from holdfast_gates.held_out import first_sentence, questions_labels
from holdfast_gates.shortfalls import Shortfall, of_decision, of_drift, of_schema
from holdfast_pipelines.folder import place_of, read_artifact
from holdfast_pipelines.record import RunOutcome, RunResult


def last_line(result: RunResult, out: Path, report: Path, again: str, *, planted: bool) -> str:
    """One line.

    Args:
        result: of the run.
        out: its folder.
        report: what to read.
        again: the command that starts the same run again.
        planted: whether a fault was planted on purpose.
    """
    return f"{result.workload}: {_ended(result, out, report, again, planted=planted)}"


def shortfall_lines(result: RunResult, out: Path) -> tuple[str, ...]:
    """Which checks ended the run without a model, what they measured and required, and what to do; none otherwise."""
    ran = {step.step for step in result.steps}
    kinds = (GateDecision, SchemaReport, DriftReport)
    documents = [read_artifact(out, kind).document for kind in kinds if writer(kind).name in ran]
    return tuple(line for one in shortfalls(result.outcome, documents) for line in _lines(one))


def shortfalls(outcome: RunOutcome, documents: Iterable[Document]) -> tuple[Shortfall, ...]:
    """What the verdict that ended a run lacks, from the documents of its gate and its data checks."""
    found = [one for document in documents for one in _of(document)]
    if outcome == "refused":
        return tuple(one for one in found if one.by_gate)
    return tuple(one for one in found if not one.by_gate and one.verdict is Verdict.FAIL) * (outcome == "stopped")


def _of(document: Document) -> tuple[Shortfall, ...]:
    if isinstance(document, GateDecision):
        return of_decision(document)
    if isinstance(document, SchemaReport):
        return of_schema(document)
    return of_drift(document) if isinstance(document, DriftReport) else ()


def _lines(one: Shortfall) -> Iterator[str]:
    yield f"  {one.sentence}"
    if one.found:
        yield f"    found: {printable(one.found)}"
    yield f"    what to do: {one.advice}"


def _ended(result: RunResult, out: Path, report: Path, again: str, *, planted: bool) -> str:
    if result.outcome == "stopped":
        return (
            f"stopped: {result.stopped_at} found the delivery unfit, and nothing was trained. "
            f"Read {report}, mend the delivery and run it again: {again}"
        )
    if result.outcome == "refused":
        return f"refused: {_refused(out)} Nothing was registered. Read {report}"
    if result.outcome == "registered":
        return (
            f"registered: version {result.model_version} passed the gate, and no rollout was asked for. "
            "Run the same command without --no-rollout to roll it out"
        )
    return _rolled_out(read_artifact(out, RolloutRecord).document, out, again, planted=planted)


def _refused(out: Path) -> str:
    """What the gate objected to, and what would help."""
    decision = read_artifact(out, GateDecision).document
    worst = [check for check in decision.counting if check.verdict is decision.verdict]
    names = ", ".join(check.name for check in worst)
    labels = next((first_sentence(check) for check in worst if questions_labels(check)), None)
    if labels is not None:
        return f"the gate did not pass {names}: {labels}."
    contract = next((check.reason for check in worst if check.reason.startswith(NEW_CONTRACT)), None)
    if contract is not None and decision.verdict is Verdict.INCONCLUSIVE:
        return f"the gate was inconclusive on {names}: {contract}."
    if decision.verdict is Verdict.INCONCLUSIVE:
        wide = all(check.lower is not None for check in worst)
        what = "more examples make its intervals narrower" if wide else "the lines above have the reason of each"
        return f"the gate was inconclusive on {names}: {what}."
    return f"the gate failed {names}: train another model, or look at the data."


def _rolled_out(record: RolloutRecord, out: Path, again: str, *, planted: bool) -> str:
    head = ending.ended(record)
    if record.outcome == "promoted":
        return f"{head} Version {record.candidate_version} serves all traffic"
    what = ending.what_to_do(record, again, planted=planted)
    return f"{head} {what} The incident report: {place_of(out, RolloutRecord) / 'incident.md'}"
