"""The last line on the terminal: how a rollout ended, why, and what to do; light."""

from holdfast.artifacts.documents import RolloutRecord
from holdfast.artifacts.folder import Artifact
from holdfast.registry.notes import locks

PLANTED = "The fault was planted on purpose, so nothing is to be mended."


def last_line(record: Artifact[RolloutRecord], again: str, *, planted: bool) -> str:
    """One line.

    Args:
        record: of the rollout.
        again: the command that starts the same rollout again.
        planted: whether a fault was planted on purpose.
    """
    found = record.document
    head = f"{found.name} version {found.candidate_version}: {ended(found)}"
    if found.outcome == "promoted":
        return f"{head} It serves all traffic; the record is {record.folder}"
    return f"{head} {what_to_do(found, again, planted=planted)} The incident report: {record.folder / 'incident.md'}"


def ended(record: RolloutRecord) -> str:
    """The outcome, its reason and its cause."""
    reason = " ".join(record.reason.split())
    if record.outcome == "promoted":
        return f"promoted: {reason}."
    return f"{record.outcome}: {reason} (cause: {record.cause.words})."


def what_to_do(record: RolloutRecord, again: str, *, planted: bool) -> str:
    """For a rollout that was not promoted."""
    if planted and record.outcome == "rolled-back":
        return PLANTED
    if locks(record.outcome, record.cause, planted=planted):
        return record.cause.advice
    return f"{record.cause.advice} The command: {again}"
