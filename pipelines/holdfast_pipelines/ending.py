"""The last line on the terminal of a run: how it ended, why, and what to do."""

from pathlib import Path

from holdfast.artifacts.documents import GateDecision, RolloutRecord, Verdict
from holdfast.serving.rollout.reporting import ending
from holdfast_gates.held_out import first_sentence, questions_labels
from holdfast_pipelines.folder import place_of, read_artifact
from holdfast_pipelines.record import RunResult


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
    worst = [check for check in decision.checks if check.verdict is decision.verdict]
    names = ", ".join(check.name for check in worst)
    labels = next((first_sentence(check) for check in worst if questions_labels(check)), None)
    if labels is not None:
        return f"the gate did not pass {names}: {labels}."
    if decision.verdict is Verdict.INCONCLUSIVE:
        return f"the gate was inconclusive on {names}: more examples make its intervals narrower."
    return f"the gate failed {names}: train another model, or look at the data."


def _rolled_out(record: RolloutRecord, out: Path, again: str, *, planted: bool) -> str:
    head = ending.ended(record)
    if record.outcome == "promoted":
        return f"{head} Version {record.candidate_version} serves all traffic"
    what = ending.what_to_do(record, again, planted=planted)
    return f"{head} {what} The incident report: {place_of(out, RolloutRecord) / 'incident.md'}"
