"""The last lines on the terminal of a run: how it ended, which checks decided, and what to do."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.artifacts.documents import Document, DriftReport, GateDecision, RolloutRecord, SchemaReport, Verdict
from holdfast.artifacts.folder import Artifact
from holdfast.errors import HoldfastError
from holdfast.serving.rollout.reporting import ending
from holdfast.steps import writer
from holdfast.wording import printable
from holdfast_gates.champion import NEW_CONTRACT
from holdfast_gates.held_out import first_sentence, questions_labels
from holdfast_gates.shortfalls import Shortfall, of_document
from holdfast_pipelines.folder import place_of, read_artifact
from holdfast_pipelines.notify import RunKind, RunMessage, post, reason_of, url_of
from holdfast_pipelines.record import RunOutcome, RunResult

_KINDS: dict[RunOutcome, RunKind] = {
    "registered": "ended-well",
    "promoted": "ended-well",
    "passed": "ended-well",
    "refused": "gate-refused",
    "stopped": "delivery-refused",
    "rolled-back": "rolled-back",
    "inconclusive": "inconclusive",
    "failed": "failed",
}


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
    documents = [found.document for found in _judged(result, out)]
    return tuple(line for one in shortfalls(result.outcome, documents) for line in _lines(one))


def _judged(result: RunResult, out: Path) -> list[Artifact[Any]]:
    """The decision of the gate and the reports of the data checks, as far as they ran."""
    ran = {step.step for step in result.steps}
    kinds = (GateDecision, SchemaReport, DriftReport)
    return [read_artifact(out, kind) for kind in kinds if writer(kind).name in ran]


def shortfalls(outcome: RunOutcome, documents: Iterable[Document]) -> tuple[Shortfall, ...]:
    """What the verdict that ended a run lacks, from the documents of its gate and its data checks."""
    found = [one for document in documents for one in of_document(document)]
    if outcome == "refused":
        return tuple(one for one in found if one.by_gate)
    return tuple(one for one in found if not one.by_gate and one.verdict is Verdict.FAIL) * (outcome == "stopped")


@dataclass
class Notified:
    """What is posted when the block ends."""

    result: RunResult | None = None
    """Left out: the run failed."""


@contextmanager
def notified(to: str | None, workload: str, out: Path) -> Iterator[Notified]:
    """Posts how the run inside ended to a URL (`env:NAME`: the one in that variable); None: nowhere.

    Raises:
        WorkloadError: no URL, before anything runs.
    """
    url, ended = None if to is None else url_of(to), Notified()
    try:
        yield ended
    except HoldfastError as error:
        if url is not None:
            first = str(error).splitlines()[0]
            post(url, RunMessage("failed", workload, out.name, "failed", None, (first,)))
        raise
    if url is not None and ended.result is not None:
        post(url, _message(ended.result, out))


def _message(result: RunResult, out: Path) -> RunMessage:
    documents = [found.document for found in _judged(result, out)]
    verdict = result.verdict(writer(GateDecision).name) or result.verdict(result.stopped_at or "")
    reasons = tuple(map(reason_of, shortfalls(result.outcome, documents)))
    return RunMessage(_KINDS[result.outcome], result.workload, out.name, result.outcome, verdict, reasons)


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
