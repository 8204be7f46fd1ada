"""The page of a run whose artifacts lie apart, as in the pod of a cluster: the same as of a run folder."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.artifacts.documents import GateDecision, Registration, Snapshot, Verdict
from holdfast.artifacts.folder import Artifact, Ref, load_any, replace_file
from holdfast.artifacts.inspect import verdict_of
from holdfast.errors import ArtifactError
from holdfast.steps import STEPS, possible, writer
from holdfast_pipelines.folder import ARTIFACTS
from holdfast_pipelines.record import RECORD, RunOutcome, RunResult, StepRecord
from holdfast_pipelines.report.page import write_report


def write_gathered(artifacts: Sequence[Ref], out: Path, *, seed: int) -> Path:
    """Writes the page of the run that made these artifacts to the file `out` and returns it.

    Raises:
        ArtifactError: two artifacts of one step, no snapshot, or one that cannot be read.
        IntegrityError: an artifact is not the one that its reference names.
    """
    found: dict[str, Artifact[Any]] = {}
    for one in map(load_any, artifacts):
        step = writer(type(one.document)).name
        if step in found:
            raise ArtifactError(f"{one.folder}: expected one artifact of each step, found two of {step}")
        found[step] = one
    if writer(Snapshot).name not in found:
        raise ArtifactError(f"{out}: expected the artifacts of a run, found no snapshot among {len(found)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        run = Path(place)
        (run / ARTIFACTS).mkdir()
        for step, one in found.items():
            (run / ARTIFACTS / step).symlink_to(one.folder.resolve())
        replace_file(run / RECORD, json.dumps(_record(found, seed).as_dict()).encode())
        replace_file(out, write_report(run, run / "report.html").read_bytes())
    return out


def _record(found: Mapping[str, Artifact[Any]], seed: int) -> RunResult:
    """How the run ended, from the verdicts of its documents."""
    verdicts = {step: verdict_of(one.document) for step, one in found.items()}
    guards = [step.name for step in STEPS if step.stops_delivery]
    stopped = next((name for name in guards if verdicts.get(name) == Verdict.FAIL), None)
    registered = found.get(writer(Registration).name)
    steps = tuple(
        StepRecord(step.name, f"{ARTIFACTS}/{step.name}", found[step.name].digest, verdicts[step.name])
        for step in possible()
        if step.name in found
    )
    return RunResult(
        found[writer(Snapshot).name].document.name,
        seed,
        outcome=_outcome(verdicts, stopped),
        stopped_at=stopped,
        model_version=None if registered is None else registered.document.model_version,
        steps=steps,
    )


def _outcome(verdicts: Mapping[str, str], stopped: str | None) -> RunOutcome:
    if stopped is not None:
        return "stopped"
    decided = verdicts.get(writer(GateDecision).name)
    if decided is None:
        return "failed"
    if decided != Verdict.PASS:
        return "refused"
    return "registered" if writer(Registration).name in verdicts else "passed"
