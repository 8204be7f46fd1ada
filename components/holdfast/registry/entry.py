"""Registering: one model with its evidence becomes one complete version."""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.artifacts.documents import Snapshot
from holdfast.progress import say
from holdfast.registry.bundle import DECISION, PACKAGE, package_digest
from holdfast.registry.client import connected, locked, or_none, public, sqlite_file
from holdfast.registry.version import CANDIDATE, CHAMPION, DECIDED, Registered, aliases_of, versions_of
from holdfast.steps import role_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT = "mlflow.parentRunId"
"""The tag by which MLflow shows a run below another one."""
MAX_DESCRIPTION = 4900
"""MLflow's databases hold 5000 characters."""


@dataclass(frozen=True)
class Point:
    """One value of a metric; `step` is the epoch for a training curve, else 0."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class EnclosingRun:
    """A run of MLflow that somebody else opened: that of a whole pipeline."""

    run_id: str
    experiment: str | None = None
    """Its experiment, where that is known."""

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "EnclosingRun | None":
        """The one that Kubeflow's plugin for MLflow names to the pods of a run, in MLflow's own variables."""
        run_id = env.get("MLFLOW_RUN_ID")
        return cls(run_id, env.get("MLFLOW_EXPERIMENT_ID") or None) if run_id else None

    def experiment_at(self, client: "MlflowClient") -> str | None:
        """The experiment of the run; None where this server has no such run, or another one of that name."""
        found = or_none(lambda: client.get_run(self.run_id))
        if found is None or found.info.lifecycle_stage != "active":
            return None
        experiment = str(found.info.experiment_id)
        return experiment if self.experiment in (None, experiment) else None


@dataclass(frozen=True)
class Entry:
    """What is written about one model."""

    name: str
    model_digest: str
    tags: Mapping[str, str]
    """Of the version and of its run."""
    description: str
    """Markdown for the version's page."""
    about: str
    """Markdown for the registered model's page."""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[Point] = ()
    dataset: tuple[str, str] | None = None
    """Name and digest of the data the model was trained on."""
    parent: "EnclosingRun | None" = None
    """The run that this one is a part of."""


def register(tracking: str, entry: Entry, *, package: Path, reports: Path) -> Registered:
    """Makes one version of the pyfunc folder `package`, with the files of `reports` in its run; alias `candidate`.

    By (name, model digest): a second call, also after a crash in the first, gives the same version, unless that was
    rolled back and the decision is a new one. The version is the last thing made and carries its tags from the start,
    so that a version is always a complete one. Into a SQLite store one process registers after the other.
    """
    with _alone(tracking), connected(tracking) as client:
        decision = entry.tags.get(DECISION)
        versions = versions_of(client, entry.name, entry.model_digest, decision)
        if versions and decision is not None and versions[0].tags.get(DECISION) == decision:
            client.set_model_version_tag(entry.name, str(versions[0].version), DECIDED, str(int(time.time() * 1000)))
        made = versions[0] if versions else _register_new(client, entry, tracking, package, reports)
        version = int(made.version)
        if aliases_of(client, entry.name).get(CHAMPION) != version:
            client.set_registered_model_alias(entry.name, CANDIDATE, str(version))
        return Registered(version, str(made.run_id))


@contextmanager
def _alone(tracking: str) -> Iterator[None]:
    """Keeps other registrations out of a SQLite store, whose folders are made; a server needs no such lock."""
    path = sqlite_file(tracking)
    if path is None:
        yield
        return
    files = path.parent / "artifacts"
    files.mkdir(parents=True, exist_ok=True)
    with locked(files):
        yield


def shorten(text: str) -> str:
    """At most what MLflow's description holds, cut at the end of a line."""
    if len(text) <= MAX_DESCRIPTION:
        return text
    return text[:MAX_DESCRIPTION].rpartition("\n")[0] + "\n\n… the rest is in `decision.md`"


def _register_new(client: "MlflowClient", given: Entry, tracking: str, package: Path, reports: Path) -> Any:
    entry = replace(given, tags={**given.tags, PACKAGE: package_digest(package)})
    around = None if entry.parent is None else entry.parent.experiment_at(client)
    if entry.parent is not None and around is None:
        run = f"the run {entry.parent.run_id} (MLFLOW_RUN_ID)"
        say(f"{public(tracking)}: expected {run}, found none: registered without")
        entry = replace(entry, parent=None)
    experiment = around or _experiment(client, entry.name, tracking)
    _close_open_runs(client, experiment, entry)
    run_id = _open_run(client, experiment, entry)
    model_id = _upload(client, experiment, run_id, entry, package)
    client.log_artifacts(run_id, str(reports))
    _log(client, run_id, model_id, entry)
    client.set_terminated(run_id, "FINISHED")
    _describe(client, entry)
    made = client.create_model_version(
        entry.name,
        f"models:/{model_id}",
        run_id=run_id,
        tags=dict(entry.tags),
        description=shorten(entry.description),
        model_id=model_id,
    )
    return _oldest(client, entry, made)


def _oldest(client: "MlflowClient", entry: Entry, made: Any) -> Any:
    """Of two that registered the same model at the same moment, the first one stays."""
    first = versions_of(client, entry.name, entry.model_digest, entry.tags.get(DECISION))[0]
    if int(first.version) != int(made.version):
        client.delete_model_version(entry.name, str(made.version))
    return first


def _experiment(client: "MlflowClient", name: str, tracking: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    path = sqlite_file(tracking)
    # MLflow would put the files of a SQLite store into ./mlruns of whoever calls.
    files = None if path is None else (path.resolve().parent / "artifacts" / name).as_uri()
    return _made_or_found(client, name, files)


def _made_or_found(client: "MlflowClient", name: str, files: str | None) -> str:
    """The experiment's id; where another process made it at the same moment, that of the other."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(name, artifact_location=files))
    except MlflowException as error:
        found = client.get_experiment_by_name(name)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return str(found.experiment_id)


def _close_open_runs(client: "MlflowClient", experiment: str, entry: Entry) -> None:
    same = f"tags.`holdfast.model_digest` = '{entry.model_digest}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment], same):
        client.set_terminated(run.info.run_id, "KILLED")


def _open_run(client: "MlflowClient", experiment: str, entry: Entry) -> str:
    tags = {**entry.tags, "mlflow.note.content": shorten(entry.description)}
    if entry.parent is not None:
        tags[PARENT] = entry.parent.run_id
    run = client.create_run(experiment, run_name=f"{entry.name}-{entry.model_digest[:8]}", tags=tags)
    return str(run.info.run_id)


def _upload(client: "MlflowClient", experiment: str, run_id: str, entry: Entry, package: Path) -> str:
    model = client.create_logged_model(
        experiment, name=entry.name, source_run_id=run_id, tags=dict(entry.tags), params=dict(entry.params)
    )
    client.log_model_artifacts(model.model_id, str(package))
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def _log(client: "MlflowClient", run_id: str, model_id: str, entry: Entry) -> None:
    from mlflow.entities import Dataset, DatasetInput, Metric, Param

    now = int(time.time() * 1000)
    metrics = [Metric(_key(p.name), p.value, now, p.step, model_id=model_id) for p in entry.metrics]
    params = [Param(_key(name), value[:500]) for name, value in entry.params.items()]
    for start in range(0, max(len(metrics), 1), 500):
        client.log_batch(run_id, metrics=metrics[start : start + 500], params=params if start == 0 else ())
    if entry.dataset is not None:
        name, digest = entry.dataset
        source = json.dumps({role_of(Snapshot): digest})
        data = Dataset(name=name, digest=digest[:36], source_type="holdfast", source=source)
        client.log_inputs(run_id, datasets=[DatasetInput(dataset=data)])


def _describe(client: "MlflowClient", entry: Entry) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(entry.name, description=shorten(entry.about))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client.update_registered_model(entry.name, description=shorten(entry.about))
    for key in ("holdfast.workload", "holdfast.modality", "holdfast.threat"):
        if key in entry.tags:
            client.set_registered_model_tag(entry.name, key, entry.tags[key])


def _key(name: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^A-Za-z0-9_\-./: ]", "_", name)
