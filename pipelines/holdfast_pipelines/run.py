"""The main job on one machine: a workload through `retrain`, then through `rollout`, with a record of it.

The run folder holds `run.json`, `steps/STEP/` (the artifacts) and `logs/STEP.log`. The record is replaced after every
step; until the end its outcome is "failed", so that a run that was killed is one that did not finish.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from holdfast.artifacts.documents import GateDecision, Model, Registration, RolloutRecord, Snapshot, Verdict
from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, replace_file
from holdfast.artifacts.regular import read_at_most
from holdfast.artifacts.requests import request_text
from holdfast.attestation.store import ATTESTATIONS
from holdfast.errors import RunError, WorkloadError
from holdfast.progress import say
from holdfast.reuse import Cache, code_digest
from holdfast.steps import STEPS, find, names, possible, writer
from holdfast.workload.schema import Workload
from holdfast_pipelines import parameters as given
from holdfast_pipelines.answering import answered
from holdfast_pipelines.folder import ARTIFACTS, LOGS, place_of, read_artifact
from holdfast_pipelines.local import Machine, StepError, pythons
from holdfast_pipelines.preflight import check_policy, check_rows, check_workload
from holdfast_pipelines.record import MAX_RECORD_BYTES, RECORD, RunOutcome, RunResult, StepRecord
from holdfast_pipelines.signing import Signing
from holdfast_pipelines.undecided import hold_undecided, reviews_of, with_reviews
from holdfast_pipelines.warm import Servers

_AGAIN = ("registered", "inconclusive", "rolled-back")
"""Outcomes of a run whose model may be rolled out."""
_OURS = (ARTIFACTS, LOGS, ATTESTATIONS, ".kfp", RECORD)


def run(
    workload: Path,
    *,
    out: Path,
    tracking: str,
    cache: Path | None,
    data: Path | None = None,
    seed: int = 0,
    from_step: str | None = None,
    rollout: bool = True,
    device: str = "auto",
    threads: int = 1,
    game_day: str | None = None,
    retries: int = 0,
    overrides: Mapping[str, Any] | None = None,
    interpreters: Mapping[str, Path] | None = None,
    forks: Servers | None = None,
    reviews: Path | None = None,
    keys: Path | None = None,
    trust: Path | None = None,
    because: Ref | None = None,
) -> RunResult:
    """Runs the pipelines on the workload file; `out` then holds the record, the artifacts and the logs.

    Args:
        workload: the workload file; paths in it are relative to its folder.
        out: the run folder; what an earlier run left in it is replaced.
        tracking: MLflow tracking URI.
        cache: where what steps made is kept for reuse; None runs every step.
        data: a file to use instead of the workload's source.
        seed: of everything random.
        from_step: this step and all after it are run even if nothing changed.
        rollout: whether a registered model is rolled out.
        device: auto, cpu or cuda.
        threads: CPU threads per step; on small networks and a shared machine more than one costs more than it brings.
        game_day: breaks the candidate on purpose, see the rollout step.
        retries: how often a rollout is tried again that ended inconclusive for a cause that passes by itself.
        overrides: values that replace the workload's, by dotted key.
        interpreters: environment -> its interpreter, where it is not the usual one.
        forks: warm processes whose forks the steps are; without, every step is a fresh process.
        reviews: the folder of reviews of a workload that names none: what it decides holds, and rows that this run sets
            aside are added to it as undecided. None keeps nothing, unless the workload names a folder.
        keys: a folder of keys, one for each role: what the steps make is signed, and with its `trust.yaml` registration
            and rollout go on only where everything was.
        trust: a trust policy: the policies whose verdicts count, and whose signatures must be there.
        because: the request of a monitor that this run answers.

    Raises:
        StepError: a step failed; the record has its name.
        RefusedError: the request is not signed by whom the trust policy asks for.
        WorkloadError: the workload, an override, or the name of a step is not valid.
        InputError: a file that the workload names is not there.
    """
    folder, plan = workload.resolve().parent, given.read(workload, overrides)
    plan = _placed(with_reviews(plan, reviews := reviews_of(plan, folder, reviews)), data, folder)
    signing = Signing.of(keys, out, trust)
    text, digest = _answered(because, plan, reviews, signing.trust)
    settings = given.Settings(tracking=tracking, seed=seed, device=device, threads=threads, because=text)
    machine = _machine(plan, folder, out, cache, from_step, pythons(interpreters))
    machine.forks, machine.signing = forks, signing
    with _claimed(machine.out):
        record = _Record(machine, RunResult(plan.name, seed, outcome="failed", steps=(), because=digest))
        with record.of_failure():
            _retrain(machine, _checked(machine, record, plan, folder, settings), reviews)
            outcome = record.judge()
            if outcome == "registered" and rollout:
                asked = given.rollout_parameters(plan, _registered_version(machine.out), settings, game_day)
                outcome = _roll_out(machine, record, asked, retries)
            record.finish(outcome)
        _remember(machine.out)
    return record.result


def judge(
    plan: Workload,
    *,
    folder: Path,
    out: Path,
    settings: given.Settings,
    cache: Path | None,
    data: Path | None = None,
    champion: str | None = None,
    interpreters: Mapping[str, Path] | None = None,
    forks: Servers | None = None,
) -> RunResult:
    """Runs `pr_gate` on a workload: all up to the verdict; nothing is registered, and no review is added to.

    Args:
        plan: the workload as read, with paths relative to `folder`.
        folder: of the workload file.
        out: the run folder.
        settings: seed, device, threads, and the registry; without its address there is no champion.
        cache: where what steps made is kept for reuse; None runs every step.
        data: a file to use instead of the workload's source.
        champion: the registered model whose champion is compared; left out: the workload's own.
        interpreters: environment -> its interpreter, where it is not the usual one.
        forks: warm processes whose forks the steps are.

    Raises:
        StepError, WorkloadError, InputError: as `run`.
    """
    from holdfast_pipelines.retrain import pr_gate

    plan = _placed(plan, data, folder)
    machine = replace(_machine(plan, folder, out, cache, None, pythons(interpreters)), forks=forks)
    with _claimed(machine.out):
        record = _Record(machine, RunResult(plan.name, settings.seed, outcome="failed", steps=()))
        with record.of_failure():
            parameters = _checked(machine, record, plan, folder, settings) | {"name": champion or plan.name}
            machine.run(pr_gate(asked=given.asked_by(parameters)), _with_checkpoint(machine, parameters))
            record.finish(record.verdict() or "passed")
        return record.result


def _answered(because: Ref | None, plan: Workload, reviews: Path | None, trust: Path | None) -> tuple[str, str | None]:
    """The request that a run answers, as text and by its digest."""
    if because is None:
        return "", None
    request = answered(because, plan, reviews, trust)
    return request_text(request), request.digest


def _checked(
    machine: Machine, record: "_Record", plan: Workload, folder: Path, settings: given.Settings
) -> given.Parameters:
    """The parameters of `retrain`, after what can be checked before a step runs."""
    parameters = given.retrain_parameters(plan, folder, settings)
    check_workload(machine, plan, settings)
    record.on_rows(partial(check_rows, machine, plan, settings))
    return parameters


def _placed(plan: Workload, data: Path | None, folder: Path) -> Workload:
    """The workload with `data` for its source, if given, and its paths made absolute."""
    return given.located(given.with_data(plan, str(data.resolve())) if data is not None else plan, folder)


def roll_out(
    workload: Path,
    *,
    out: Path,
    tracking: str,
    seed: int = 0,
    threads: int = 1,
    game_day: str | None = None,
    retries: int = 0,
    interpreters: Mapping[str, Path] | None = None,
    forks: Servers | None = None,
    keys: Path | None = None,
    trust: Path | None = None,
) -> RunResult:
    """Rolls out what an earlier run in `out` registered: the other half of `run(..., rollout=False)`.

    What was rolled out before and not promoted is rolled out again; the rollout refuses what it must.

    Raises:
        RunError: `out` holds no run that registered a model.
        StepError: the rollout failed.
    """
    before = read_record(out)
    if before.outcome not in _AGAIN or before.model_version is None:
        raise RunError(f"{out}: expected a run that registered a model, found one that ended {before.outcome}")
    settings = given.Settings(tracking=tracking, seed=seed, threads=threads)
    plan = given.read(workload)
    machine = Machine(
        out=out.resolve(), pythons=pythons(interpreters), forks=forks, signing=Signing.of(keys, out, trust)
    )
    with _held(machine.out):
        _keep_rollout(machine.out)
        record = _Record(machine, replace(_without_rollout(before), outcome="registered"))
        with record.of_failure():
            parameters = given.rollout_parameters(plan, before.model_version, settings, game_day)
            record.finish(_roll_out(machine, record, parameters, retries))
        _remember(machine.out)
        return record.result


def _remember(out: Path) -> None:
    """Keeps what the run measured, because the next run in this folder replaces its artifacts."""
    from holdfast_pipelines.report.history import remember

    remember(out, time.time())


def read_record(out: Path) -> RunResult:
    """The record of the run in `out`.

    Raises:
        RunError: there is none, or it is not one.
    """
    try:
        found = json.loads(read_at_most(out / RECORD, MAX_RECORD_BYTES, "the record of a run", error=RunError))
        steps = tuple(StepRecord(**step) for step in found.pop("steps"))
        return RunResult(**{**found, "retried": tuple(found.get("retried", ()))}, steps=steps)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunError(f"{out / RECORD}: expected the record of a run, found none that can be read ({error})") from None


class _Record:
    """Keeps run.json true while a run goes on."""

    def __init__(self, machine: Machine, result: RunResult) -> None:
        self.out, self.result = machine.out, result
        self._check_rows: Callable[[Artifact[Snapshot]], None] = lambda snapshot: None
        machine.on_step = self.add
        self._write()

    def add(self, step: StepRecord) -> None:
        """Notes a step; a part of one is not noted, the step that joins the parts is."""
        if find(step.step) is None:
            return
        # In the documented order: kfp.local takes independent steps in the order of their names.
        steps = sorted((*self.result.steps, step), key=lambda record: names(possible()).index(record.step))
        self.result = replace(self.result, steps=tuple(steps))
        if step.step == writer(Model).name:
            shutil.rmtree(self.out / "checkpoint", ignore_errors=True)
        if step.step == writer(Registration).name:
            self.result = replace(self.result, model_version=_registered_version(self.out))
        self._write()
        if step.step == writer(Snapshot).name:
            self._check_rows(read_artifact(self.out, Snapshot))

    def on_rows(self, check: Callable[[Artifact[Snapshot]], None]) -> None:
        """Has `check` look at the snapshot before the steps that read it; what it raises ends the run."""
        self._check_rows = check

    def judge(self) -> RunOutcome:
        """What the verdicts of `retrain` come to."""
        ended = self.verdict()
        if ended is None and self.result.model_version is None:
            raise RunError(f"{self.out}: the gate passed the model, but it was not registered")
        return ended or "registered"

    def verdict(self) -> RunOutcome | None:
        """Why there is no model to register; None: the gate passed it."""
        guards = names(step for step in STEPS if step.stops_delivery)
        stopped = next((name for name in guards if self.result.verdict(name) == Verdict.FAIL), None)
        if stopped is not None:
            self.result = replace(self.result, stopped_at=stopped)
            return "stopped"
        if self.result.verdict(writer(GateDecision).name) != Verdict.PASS:
            return "refused"
        return None

    def again(self, reason: str) -> None:
        """Notes a rollout that is tried once more."""
        self.result = replace(_without_rollout(self.result), retried=(*self.result.retried, reason))
        self._write()

    def finish(self, outcome: RunOutcome) -> None:
        self.result = replace(self.result, outcome=outcome)
        self._write()

    @contextmanager
    def of_failure(self) -> Iterator[None]:
        """Notes which step failed."""
        try:
            yield
        except StepError as error:
            self.result = replace(self.result, stopped_at=error.step)
            self._write()
            raise

    def _write(self) -> None:
        replace_file(self.out / RECORD, (json.dumps(self.result.as_dict(), indent=2) + "\n").encode())


def _without_rollout(result: RunResult) -> RunResult:
    """As it was when the model had been registered, but for the outcome."""
    return replace(result, steps=tuple(one for one in result.steps if one.step != writer(RolloutRecord).name))


def _retrain(machine: Machine, arguments: given.Parameters, reviews: Path | None) -> None:
    from holdfast_pipelines.retrain import retrain

    check_policy(str(arguments["policy"]), None if machine.signing is None else machine.signing.trust)
    try:
        machine.run(retrain(asked=given.asked_by(arguments)), _with_checkpoint(machine, arguments))
    finally:
        # What was set aside stays so, even if a later step failed.
        hold_undecided(machine.out, reviews)


def _with_checkpoint(machine: Machine, arguments: given.Parameters) -> given.Parameters:
    return {**arguments, "checkpoint": str(machine.out / "checkpoint")}


def _roll_out(machine: Machine, record: "_Record", arguments: given.Parameters, retries: int) -> RunOutcome:
    """Rolls out until there is a verdict, or a cause that does not pass by itself, or no try is left."""
    from holdfast_pipelines.rollout import rollout

    for tries_left in reversed(range(retries + 1)):
        machine.run(rollout(), arguments)
        ended = read_artifact(machine.out, RolloutRecord).document
        if not tries_left or ended.outcome != "inconclusive" or not ended.cause.passes:
            break
        kept = _keep_rollout(machine.out)
        record.again(ended.reason)
        say(f"rollout: inconclusive: {ended.reason} ({ended.cause.words}); its record is {kept}. Trying it once more")
    if ended.outcome == "promoted":
        machine.release(ended.name, ended.candidate_version, str(arguments["tracking"]))
    return ended.outcome


def _keep_rollout(out: Path) -> Path | None:
    """Moves the record of a rollout that was not promoted out of the way of the next; returns where it is kept."""
    found = place_of(out, RolloutRecord)
    if not (found / DOCUMENT).exists():
        return None
    kept = next(place for number in count(1) if not (place := out / f"rollout-earlier-{number}").exists())
    found.rename(kept)
    return kept


def _registered_version(out: Path) -> int:
    return read_artifact(out, Registration).document.model_version


def _machine(
    plan: Workload, folder: Path, out: Path, cache: Path | None, from_step: str | None, interpreters: dict[str, Path]
) -> Machine:
    if from_step is not None and from_step not in names():
        raise WorkloadError(f"--from {from_step}: expected one of {', '.join(names())}")
    own = given.own_code(plan, folder)
    out = out.resolve()
    return Machine(
        out=out,
        pythons=interpreters,
        cache=Cache(cache) if cache is not None else None,
        rerun=_rerun(plan, from_step),
        pins={**given.file_pins(plan), str(out / "checkpoint"): "<checkpoint>"},
        code=code_digest(own),
        pythonpath=folder if own else None,
    )


def _rerun(plan: Workload, from_step: str | None) -> frozenset[str]:
    """The steps that run even if nothing changed: from a step on, and what looks at a source that moves."""
    after = frozenset(() if from_step is None else names()[names().index(from_step) :])
    return after | ({writer(Snapshot).name} if given.moves(plan) else frozenset())


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Makes the run folder ours alone, and empty but for checkpoints and files of others."""
    blocked = next((place for place in (out, *out.parents) if place.exists() and not place.is_dir()), None)
    if blocked is not None:
        raise WorkloadError(f"{blocked}: expected a folder for the run, found a file; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()) and not (out / RECORD).exists():
        raise WorkloadError(
            f"{out}: expected an empty folder or an earlier run, found other files; choose another --out"
        )
    with _held(out):
        if (out / RECORD).exists() and _outcome_before(out) in ("inconclusive", "rolled-back"):
            _keep_rollout(out)
        for name in _OURS:
            _remove(out / name)
        yield


def _outcome_before(out: Path) -> RunOutcome | None:
    """How the run before ended; None when its record cannot be read."""
    try:
        return read_record(out).outcome
    except RunError:
        return None


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """The run folder for this process alone."""
    handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle, out)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, out: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(f"{out}: another run is writing here; wait for it or choose another --out") from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
