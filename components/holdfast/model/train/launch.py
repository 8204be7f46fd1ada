"""Submits a job that trains on several pods, waits for its end, and takes the model from the volume that they share."""

import hashlib
import json
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event

from holdfast.artifacts.documents import Model
from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, load, load_any, write_artifact
from holdfast.compute import Compute
from holdfast.errors import ClusterError
from holdfast.kubernetes.access import in_cluster
from holdfast.kubernetes.api import ConflictError, Kube, MissingError, PassingError, Resource, wait_until
from holdfast.kubernetes.objects import Json
from holdfast.model.train.checkpoint import StoppedError
from holdfast.model.train.job import DONE, FAILED, JobConfig, ended, objects, reason, selector, state
from holdfast.model.train.step import written_elsewhere
from holdfast.model.train.workers import TrainInputs, words
from holdfast.processes import stopped_by
from holdfast.progress import say
from holdfast.workload.schema import TrainConfig

LOOK_SECONDS = 5.0
"""Between two looks at the job."""
OUTAGE_SECONDS = 600.0
"""So long the API may not answer before the wait is given up; the job goes on."""
GONE_SECONDS = 120.0
"""A job that is deleted is gone within."""


def train_on_cluster(
    inputs: TrainInputs,
    out: Path,
    *,
    config: TrainConfig,
    settings: Compute,
    job: JobConfig,
    kube: Kube | None = None,
) -> Artifact[Model]:
    """Trains in `config.train.workers` pods and writes their model to `out`.

    The job's name is a digest of what it trains, so that a step that is tried again waits for the job that it finds, or
    starts it again from its checkpoint.

    Raises:
        StoppedError: SIGTERM came; the job was deleted, and its checkpoint is kept.
        ClusterError: the job failed, was deleted by someone else, or the API refuses or does not answer.
    """
    kube = kube or Kube(in_cluster())
    name = _name(inputs, config, settings, job)
    place = Path(job.path) / name
    given = words(
        _placed(inputs, place), place / "model", config=config, settings=settings, checkpoint=place / "checkpoint"
    )
    made = objects(job, name, kube.access.namespace, given, config.train.workers)
    with stopped_by(signal.SIGTERM) as stop:
        _Launch(kube, name, made, stop, place / "model").run()
    model = _take(place / "model", out)
    try:
        for kind, _ in reversed(made):
            _forget(kube, kind, name)
    except PassingError as error:  # the model is here: that is no reason to train again
        say(f"train: {kube.access.namespace}/{name} could not be deleted ({error})")
    shutil.rmtree(place, ignore_errors=True)
    return model


def _name(inputs: TrainInputs, config: TrainConfig, settings: Compute, job: JobConfig) -> str:
    digests = {name: load_any(one).digest for name, one in vars(inputs).items() if one is not None}
    facts = [digests, config.model_dump(mode="json"), vars(settings), job.model_dump(mode="json")]
    return f"holdfast-train-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}"


def _placed(inputs: TrainInputs, folder: Path) -> TrainInputs:
    """Copies in `folder`, complete or not there, under the digests of what was copied."""
    found = {name: _copy(one, folder / name) for name, one in vars(inputs).items() if one is not None}
    return replace(inputs, **found)


def _copy(source: Ref, out: Path) -> Ref:
    """The artifact in `out`; one that is there already is taken when it is the same."""
    digest = load_any(source).digest
    if not (out / DOCUMENT).exists() or load_any(out).digest != digest:
        with write_artifact(out) as work:
            shutil.copytree(source.folder, work, dirs_exist_ok=True)
    return Ref(out, digest)


def _take(place: Path, out: Path) -> Artifact[Model]:
    """The model that the pods wrote, in `out`, after every byte of it was checked."""
    found = written_elsewhere(place)
    with write_artifact(out) as work:
        shutil.copytree(place, work, dirs_exist_ok=True)
        taken = load(Ref(work, found.digest), Model)
        for name in taken.document.files:
            taken.path(name)
    return load(Ref(out, found.digest), Model)


def _forget(kube: Kube, kind: Resource, name: str) -> None:
    with suppress(MissingError):
        kube.delete(kind, name)


class _Launch:
    """One job from its submission to its end."""

    def __init__(self, kube: Kube, name: str, made: list[tuple[Resource, Json]], stop: Event, model: Path) -> None:
        self.kube, self.name, self.made, self.stop, self.model = kube, name, made, stop, model
        self.jobs, self.kind = made[-1][0], str(made[-1][1]["kind"])
        self.called = f"{self.kind} {kube.access.namespace}/{name}"
        self._said = ""

    def run(self) -> None:
        """Returns when the job is done."""
        self._submit()
        found = self._wait()
        if ended(found) == FAILED:
            raise ClusterError(
                f"train: {self.called} failed: {reason(found)}; what its pods wrote: kubectl logs -n "
                f"{self.kube.access.namespace} -l {selector(self.name)} --tail 20; it starts again, from its "
                "checkpoint, with the step"
            )

    def _submit(self) -> None:
        """Creates what is not there; a job that ended before, without a model that is here, is replaced."""
        for kind, body in self.made:
            try:
                self._outlast(lambda kind=kind, body=body: self.kube.create(kind, body))  # type: ignore[misc]
            except ConflictError:
                if kind != self.jobs:
                    continue
                self._replace_ended(body)

    def _replace_ended(self, body: Json) -> None:
        found = self._outlast(lambda: self.kube.get(self.jobs, self.name))
        of_use = ended(found) is None or ended(found) in DONE and (self.model / DOCUMENT).exists()
        if of_use and "deletionTimestamp" not in found["metadata"]:
            say(f"train: {self.called} is there already: waiting for it")
            return
        _forget(self.kube, self.jobs, self.name)
        wait_until(self._still_there, GONE_SECONDS, self.called)
        self.kube.create(self.jobs, body)

    def _still_there(self) -> str | None:
        try:
            self.kube.get(self.jobs, self.name)
        except MissingError:
            return None
        return "it is being deleted"

    def _wait(self) -> Json:
        """The job as it is at its end."""
        while True:
            found = self._outlast(lambda: self.kube.get(self.jobs, self.name))
            self._say(state(found))
            if ended(found) is not None:
                return found
            if self.stop.wait(LOOK_SECONDS):
                self._cancel()

    def _cancel(self) -> None:
        for kind, _ in reversed(self.made):
            _forget(self.kube, kind, self.name)
        raise StoppedError(
            f"train: stopped by SIGTERM; {self.called} was deleted and its checkpoint kept; start it again to go on"
        )

    def _say(self, how: str) -> None:
        if how != self._said:
            say(f"train: {self.called}: {how}")
        self._said = how

    def _outlast(self, call: Callable[[], Json]) -> Json:
        """The answer of the API, which may be away for a while."""
        deadline = time.monotonic() + OUTAGE_SECONDS
        while True:
            try:
                return call()
            except MissingError:
                raise ClusterError(f"train: {self.called} is not there any more: it was deleted by someone") from None
            except PassingError as error:
                if time.monotonic() > deadline:
                    raise
                self._say(f"no answer ({error})")
                if self.stop.wait(LOOK_SECONDS):
                    self._cancel()
