"""The request step: reads a report and the request before, writes the request that the report leads to."""

from pathlib import Path

from holdfast.artifacts.documents import MonitorReport, RetrainRequest
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.monitor.asking import request as ask
from holdfast.monitor.kept import keep, newest
from holdfast.steps import by_role


def request(
    report: Ref, out: Path, *, cooldown_days: int, previous: Ref | None = None, kept: Path | None = None
) -> Artifact[RetrainRequest]:
    """Writes the request that a report leads to; `kept` has earlier ones, by model, and gets this one.

    Raises:
        InputError: it leads to none, or the cooldown is not over.
        ArtifactError: report or request are altered.
    """
    found = load(report, MonitorReport)
    before = load(previous, RetrainRequest) if previous is not None else _last(found.document.name, kept)
    asked = ask(found.document, before.document if before else None, cooldown_days)
    digests = by_role(found) | ({"previous": before.digest} if before else {})
    made = save(out, asked.model_copy(update={"inputs": digests}))
    if kept is not None:
        keep(made, kept / found.document.name, asked.asked)
    return made


def asks(report: Artifact[MonitorReport], kept: Path | None, cooldown_days: int) -> bool:
    """Whether a request would be written now."""
    from holdfast.errors import InputError

    before = _last(report.document.name, kept)
    try:
        ask(report.document, before.document if before else None, cooldown_days)
    except InputError:
        return False
    return True


def _last(name: str, kept: Path | None) -> Artifact[RetrainRequest] | None:
    return None if kept is None else newest(kept / name, RetrainRequest)
