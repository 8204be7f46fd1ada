"""The measured runs of a workload: `history.jsonl` in a run folder, one line for each model; a new run keeps it.

Runs of the same workload in folders next to it count as well. Under Kubeflow there is no run folder: there MLflow has
the same numbers, as metrics of each registered model.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from holdfast.artifacts.documents import AnswerTimes, Count, Model, Performance, Registration, RobustnessReport, Sha256
from holdfast.artifacts.folder import replace_file
from holdfast.artifacts.regular import open_regular
from holdfast.errors import InputError
from holdfast.progress import say
from holdfast_pipelines.record import RunOutcome
from holdfast_pipelines.report.evidence import LoadedRun, read_run
from holdfast_pipelines.report.model import threat

HISTORY = "history.jsonl"
MOST_RUNS = 100
MAX_BYTES = 2**22


class MeasuredRun(BaseModel):
    """What one run measured of its model."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    workload: str
    ended: float
    """Unix seconds; 0 where that is not known."""
    outcome: RunOutcome
    seed: int
    model: Sha256
    recipe: str
    threat: str
    """What the attacker may change, and how much was tried: only equals can be compared."""
    clean: tuple[Count, ...]
    """Recall of each class without any attack."""
    worst_case: tuple[Count, ...]
    """The same under every attack."""
    latency: AnswerTimes | None = None


def measured(run: LoadedRun, ended: float = 0.0) -> MeasuredRun | None:
    """What is kept of a run; None of one that ended before its model was attacked."""
    model, report, registered = run.artifact(Model), run.document(RobustnessReport), run.document(Registration)
    if model is None or report is None or report.clean_performance is None or report.worst_case_performance is None:
        return None
    recipe = model.document.recipe
    return MeasuredRun(
        workload=run.record.workload,
        ended=ended,
        outcome=run.record.outcome,
        seed=run.record.seed,
        model=model.digest,
        recipe=f"{recipe.get('recipe', '')}, {recipe.get('epochs', '?')} epochs",
        threat=f"{threat(model.document.threat)}, tier {report.tier}",
        clean=_recalls(report.clean_performance),
        worst_case=_recalls(report.worst_case_performance),
        latency=registered.latency if registered else None,
    )


def remember(out: Path, ended: float) -> None:
    """Adds the run in the folder `out` to its history; a model that is in it already has its line replaced."""
    found = measured(read_run(out), ended)
    if found is None:
        return
    before = _read(out / HISTORY)
    same = next((run for run in before if run.model == found.model), None)
    if same is not None and found.latency is None:
        found = found.model_copy(update={"latency": same.latency})
    lines = [run.model_dump_json() for run in (*(run for run in before if run.model != found.model), found)]
    replace_file(out / HISTORY, ("\n".join(lines[-MOST_RUNS:]) + "\n").encode())


def runs_of_workload(run: LoadedRun) -> tuple[MeasuredRun, ...]:
    """This run, last, and the others of its workload under the same attacks: of its folder and of those next to it."""
    now = measured(run)
    if now is None:
        return ()
    found = {one.model: one for path in sorted(run.folder.resolve().parent.glob(f"*/{HISTORY}")) for one in _read(path)}
    before = found.pop(now.model, None)
    if before is not None:
        now = now.model_copy(update={"latency": now.latency or before.latency, "ended": before.ended})
    others = [one for one in found.values() if (one.workload, one.threat) == (now.workload, now.threat)]
    return (*sorted(others, key=lambda one: one.ended), now)


def _recalls(found: Performance) -> tuple[Count, ...]:
    return tuple(one.recall for one in found.classes)


def _read(path: Path) -> list[MeasuredRun]:
    """The runs of a history; none where there is no file, and a line that is not one is left out."""
    try:
        with open_regular(path, "a history", links=True) as stream:
            lines = stream.read(MAX_BYTES).splitlines()
    except InputError:
        return []
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(MeasuredRun.model_validate_json(line))
        except ValidationError:
            start = line[:40].decode(errors="replace")
            say(f"{path}:{number}: expected a measured run, found {start!r}; it is left out")
    return found
