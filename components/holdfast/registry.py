"""MLflow: where models that passed are kept, and which one serves.

MLflow is an index, never an authority: whoever may write to it can change bytes, tags and aliases. What `fetch` gives
was hashed after the download, and belongs to a gate decision with the verdict pass about those very bytes.

A registered version holds a *bundle* in its pyfunc folder (`data/bundle`): `model/` and `decision/` (artifacts),
`replay.npz`, `attacks.npz` (where the attack step kept adversarial rows), `reference.parquet`, `confidence.npz`,
`schema.pbtxt`, `evidence/`, and `bundle.json`, which pins them.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.artifacts import admission
from holdfast.artifacts.admission import NotPassed, Objection, OtherBytes
from holdfast.artifacts.documents import GateDecision, Model, Verdict
from holdfast.artifacts.folder import Artifact, Ref, replace_file, sha256_of
from holdfast.errors import ArtifactError, IntegrityError, RefusedError, RegistryError
from holdfast.ledger import notes_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CANDIDATE, PREVIOUS = "champion", "candidate", "previous"
DECISION, DECIDED = "holdfast.decision_digest", "holdfast.decided"
"""Tags: the gate's decision, and (Unix milliseconds) when a version was registered again with the same one."""
BUNDLE, MANIFEST = "bundle", "bundle.json"
PACKAGED = f"data/{BUNDLE}"
"""Where MLflow's pyfunc format puts the bundle."""
MAX_MANIFEST_BYTES = 2**20
MAX_DESCRIPTION = 4900
"""MLflow's databases hold 5000 characters."""

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
# MLflow's own defaults wait for more than ten minutes before they say that nobody answers.
_FIRST_CALL = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
_LATER_CALLS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


@dataclass(frozen=True)
class Bundle:
    """A registered version on this machine, after its bytes were verified."""

    name: str
    version: int
    folder: Path
    model: Artifact[Model]
    decision: Artifact[GateDecision]

    def path(self, name: str) -> Path:
        """The path of a file of the bundle, for example `replay.npz`.

        Raises:
            ArtifactError: the bundle holds no such file.
        """
        path = self.folder / name
        if not path.is_file():
            raise ArtifactError(f"{self.folder}: expected a file {name}, found none; register the model again")
        return path


@dataclass(frozen=True)
class Point:
    """One value of a metric; `step` is the epoch for a training curve, else 0."""

    name: str
    value: float
    step: int = 0


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


@dataclass(frozen=True)
class Registered:
    """Where a model stands."""

    version: int
    run_id: str


@dataclass(frozen=True)
class Version:
    """A registered version without its bytes."""

    number: int
    decided: float
    """Unix seconds: when it was registered, or registered again with the same decision."""
    tags: Mapping[str, str]
    aliases: tuple[str, ...]


# --- what others call -------------------------------------------------------------------------------------------------


def fetch(tracking: str, name: str, version: int | str, into: Path) -> Bundle | None:
    """Downloads a version (its number or an alias) to the folder `into`, verified; None when there is no such version.

    Raises:
        RegistryError: MLflow cannot be reached.
        IntegrityError: bytes are not those that were registered.
        RefusedError: no passing decision about these very bytes.
    """
    if not _there(tracking):
        return None
    into.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{into.name}.", suffix=".partial", dir=into.parent))
    try:
        with _connected(tracking) as client:
            found = _version(client, name, version)
            if found is None:
                return None
            _download(client, name, int(found.version), work)
        read_bundle(_bundle_in(work, name), name, int(found.version), tags=found.tags)
        if into.exists():
            shutil.rmtree(into)
        _bundle_in(work, name).rename(into)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return read_bundle(into, name, int(found.version), tags=found.tags)


def aliases(tracking: str, name: str) -> dict[str, int]:
    """Alias -> version; empty when nothing of that name is registered."""
    if not _there(tracking):
        return {}
    with _connected(tracking) as client:
        return _aliases(client, name)


def versions(tracking: str, name: str) -> tuple[Version, ...]:
    """Every version of model `name`, oldest first; empty when nothing of that name is registered.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    if not _there(tracking):
        return ()
    with _connected(tracking) as client:
        now = _aliases(client, name)
        found = [_plain(version, now) for version in _every_version(client, name)]
    return tuple(sorted(found, key=lambda version: version.number))


def tag(tracking: str, name: str, version: int, key: str, value: str) -> bool:
    """Sets one tag of a version; False when there is no such version.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    if not _there(tracking):
        raise RegistryError(f"{_public(tracking)}: expected MLflow to answer, found no database")
    with _connected(tracking) as client:
        if _version(client, name, version) is None:
            return False
        client.set_model_version_tag(name, str(version), key, value)
        return True


def library() -> None:
    """Imports what a client of MLflow with a database of its own needs; takes seconds."""
    with quiet():
        import mlflow.entities
        import mlflow.pyfunc
        import mlflow.store.model_registry.sqlalchemy_store
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def set_up(tracking: str) -> None:
    """Makes the SQLite database where there is none; elsewhere, asks whether MLflow answers."""
    path = sqlite_file(tracking)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    with _connected(tracking):
        pass


def set_alias(tracking: str, name: str, alias: str, version: int) -> None:
    """Points `alias` at `version`."""
    with _connected(tracking) as client:
        client.set_registered_model_alias(name, alias, str(version))


def promote(tracking: str, name: str, version: int) -> None:
    """The champion becomes `previous`, `version` the champion and no longer candidate; doing it twice changes nothing.

    Raises:
        RefusedError: there is no such version, or its verdict is not pass.
    """
    with _connected(tracking) as client:
        found = _version(client, name, version)
        verdict = found.tags.get("holdfast.verdict") if found is not None else None
        if verdict != Verdict.PASS:
            raise RefusedError(f"{name} version {version}: expected the verdict pass, found {verdict or 'no version'}")
        now = _aliases(client, name)
        # Each order of these three calls that a crash can leave is repaired by running them again.
        if now.get(CHAMPION) not in (None, version):
            client.set_registered_model_alias(name, PREVIOUS, str(now[CHAMPION]))
        if now.get(CHAMPION) != version:
            client.set_registered_model_alias(name, CHAMPION, str(version))
        if now.get(CANDIDATE) == version:
            client.delete_registered_model_alias(name, CANDIDATE)


def find(tracking: str, name: str, model_digest: str, *, decision: str | None = None) -> Registered | None:
    """The complete version of exactly this model, if it was registered.

    With the digest of a `decision`: not one that was rolled back under another one.
    """
    if not _there(tracking):
        return None
    with _connected(tracking) as client:
        versions = _versions_of(client, name, model_digest, decision)
        return Registered(int(versions[0].version), str(versions[0].run_id)) if versions else None


def register(tracking: str, entry: Entry, *, package: Path, reports: Path) -> Registered:
    """Makes one version of the pyfunc folder `package`, with the files of `reports` in its run; alias `candidate`.

    By (name, model digest): a second call, also after a crash in the first, gives the same version, unless that was
    rolled back and the decision is a new one. The version is the last thing made and carries its tags from the start,
    so that a version is always a complete one.
    """
    path = sqlite_file(tracking)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    with _connected(tracking) as client:
        decision = entry.tags.get(DECISION)
        versions = _versions_of(client, entry.name, entry.model_digest, decision)
        if versions and decision is not None and versions[0].tags.get(DECISION) == decision:
            client.set_model_version_tag(entry.name, str(versions[0].version), DECIDED, str(int(time.time() * 1000)))
        made = versions[0] if versions else _register_new(client, entry, tracking, package, reports)
        version = int(made.version)
        if _aliases(client, entry.name).get(CHAMPION) != version:
            client.set_registered_model_alias(entry.name, CANDIDATE, str(version))
        return Registered(version, str(made.run_id))


# --- bundles ----------------------------------------------------------------------------------------------------------


def seal_bundle(folder: Path) -> str:
    """Pins every file of `folder` in its `bundle.json`; returns the digest of that file."""
    pins = {
        path.relative_to(folder).as_posix(): sha256_of(path).model_dump()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }
    data = json.dumps({"files": pins, "version": 1}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    replace_file(folder / MANIFEST, data)
    return hashlib.sha256(data).hexdigest()


def read_bundle(folder: Path, name: str, version: int, *, tags: Mapping[str, str] | None = None) -> Bundle:
    """The bundle in `folder` after every byte was hashed; with the version's `tags`, also against these.

    Raises:
        IntegrityError: a file is altered, missing, or was added.
        RefusedError: the decision is not a pass, or is about another model.
    """
    promised = tags or {}
    _check_files(folder, promised.get("holdfast.bundle_digest"))
    model = Ref(folder / "model", promised.get("holdfast.model_digest"))
    judged = admission.read(model, Ref(folder / "decision", promised.get(DECISION)))
    wrong = judged.objection()
    if wrong is not None:
        raise RefusedError(f"{name} version {version}: {_text(wrong)}")
    return Bundle(name, version, folder, judged.model, judged.decision)


def _text(wrong: Objection) -> str:
    match wrong:
        case OtherBytes(given=given, judged=judged):
            return f"expected a decision about model {given[:12]}…, found one about {judged}"
        case NotPassed(verdict=verdict):
            return f"expected the verdict pass, found {verdict}"


def _check_files(folder: Path, digest: str | None) -> None:
    pins = _pins(folder, digest)
    there = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    }
    others = sorted((there - {MANIFEST}) ^ set(pins))
    if others:
        raise IntegrityError(f"{folder}: expected exactly the files of {MANIFEST}, found a difference at {others[0]}")
    for name, pin in pins.items():
        found = sha256_of(folder / name)
        if found.sha256 != pin:
            raise IntegrityError(
                f"{folder / name}: expected sha256 {pin[:12]}…, found {found.sha256[:12]}…; "
                "the file was altered after the model was registered"
            )


def _pins(folder: Path, digest: str | None) -> dict[str, str]:
    path = folder / MANIFEST
    found = sha256_of(path)
    if found.bytes > MAX_MANIFEST_BYTES or (digest is not None and found.sha256 != digest):
        raise IntegrityError(f"{path}: expected sha256 {digest}, found {found.sha256} ({found.bytes} bytes)")
    try:
        return {str(name): str(pin["sha256"]) for name, pin in json.loads(path.read_bytes())["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise IntegrityError(f"{path}: expected the list of the bundle's files, found something else") from None


def _bundle_in(package: Path, name: str) -> Path:
    folder = package / PACKAGED
    if not folder.is_dir():
        raise IntegrityError(
            f"{name}: expected {PACKAGED} in the registered version, found none; was it made elsewhere?"
        )
    return folder


# --- MLflow -----------------------------------------------------------------------------------------------------------


def sqlite_file(tracking: str) -> Path | None:
    """The database file of a `sqlite:///` URI."""
    prefix = "sqlite:///"
    return Path(tracking.removeprefix(prefix).partition("?")[0]) if tracking.startswith(prefix) else None


def _there(tracking: str) -> bool:
    """False for a SQLite file that nobody has made yet: asking MLflow would make it, which takes seconds."""
    path = sqlite_file(tracking)
    return path is None or (path.is_file() and path.stat().st_size > 0)


@contextmanager
def _connected(tracking: str) -> "Iterator[MlflowClient]":
    """A client that answered once; what goes wrong inside becomes one line within a bounded time."""
    _check_sqlite(tracking)
    with quiet():
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with _process_wide(mlflow, tracking):
                with _environment(_FIRST_CALL):
                    client = mlflow.MlflowClient(tracking, tracking)
                    client.search_registered_models(max_results=1)
                with _environment(_LATER_CALLS):
                    yield client
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise RegistryError(f"{_public(tracking)}: expected MLflow to answer, found: {_line(error)}") from None


@contextmanager
def _process_wide(mlflow: Any, tracking: str) -> Iterator[None]:
    # The client resolves `models:/` sources through the process-wide URI, whatever it was made with.
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(tracking)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


@contextmanager
def _environment(values: Mapping[str, str], *, keep: bool = False) -> Iterator[None]:
    """Settings that MLflow reads only from the environment, where the user set none."""
    added = [key for key in values if key not in os.environ]
    os.environ.update({key: values[key] for key in added})
    try:
        yield
    finally:
        for key in added if not keep else ():
            os.environ.pop(key, None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps MLflow's migrations, retries and telemetry out of the step's log."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    with _environment(_QUIET, keep=True):
        import mlflow  # noqa: F401  # sets its own levels when it is first imported

        before = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def _check_sqlite(tracking: str) -> None:
    """Says at once what SQLAlchemy would find out after ten attempts with growing pauses."""
    path = sqlite_file(tracking)
    if path is None:
        return
    if not path.parent.is_dir():
        raise RegistryError(f"{tracking}: expected the folder {path.parent}, found none")
    if path.exists() and not path.is_file():
        raise RegistryError(f"{tracking}: expected a SQLite database, found a folder")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise RegistryError(f"{tracking}: expected to be allowed to write, found no permission")
    if path.exists() and path.stat().st_size > 0:
        with path.open("rb") as stream:
            if stream.read(15) != b"SQLite format 3":
                raise RegistryError(f"{tracking}: expected a SQLite database, found another kind of file")


def _version(client: "MlflowClient", name: str, version: int | str) -> Any:
    number = _aliases(client, name).get(version) if isinstance(version, str) else version
    if number is None:
        return None
    return _or_none(lambda: client.get_model_version(name, str(number)))


def _aliases(client: "MlflowClient", name: str) -> dict[str, int]:
    model = _or_none(lambda: client.get_registered_model(name))
    return {} if model is None else {alias: int(version) for alias, version in model.aliases.items()}


def _or_none(ask: Any) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _versions_of(client: "MlflowClient", name: str, model_digest: str, decision: str | None) -> list[Any]:
    """Complete versions of this model, oldest first; incomplete ones are removed.

    With a `decision`, not those that were rolled back under another one: the new decision needs a version of its own.
    """
    ready = []
    for version in _every_version(client, name):
        if version.tags.get("holdfast.model_digest") != model_digest:
            continue
        if version.status != "READY":
            client.delete_model_version(name, str(version.version))
        elif decision in (None, version.tags.get(DECISION)) or not _condemned(version):
            ready.append(version)
    return sorted(ready, key=lambda version: int(version.version))


def _condemned(version: Any) -> bool:
    return any(note.condemns for note in notes_of(int(version.version), version.tags))


def _every_version(client: "MlflowClient", name: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name='{name}'", page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _plain(version: Any, aliases: Mapping[str, int]) -> Version:
    number, tags = int(version.version), dict(version.tags)
    again = tags.get(DECIDED, "")
    decided = max(int(version.creation_timestamp), int(again) if again.isdecimal() else 0) / 1000
    return Version(number, decided, tags, tuple(sorted(alias for alias, at in aliases.items() if at == number)))


def _download(client: "MlflowClient", name: str, version: int, into: Path) -> None:
    import mlflow

    source = client.get_model_version_download_uri(name, str(version))
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".download.") as folder:
        got = Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=folder))
        shutil.copytree(got, into, dirs_exist_ok=True, symlinks=True)


def _register_new(client: "MlflowClient", entry: Entry, tracking: str, package: Path, reports: Path) -> Any:
    experiment = _experiment(client, entry.name, tracking)
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
    first = _versions_of(client, entry.name, entry.model_digest, entry.tags.get(DECISION))[0]
    if int(first.version) != int(made.version):
        client.delete_model_version(entry.name, str(made.version))
    return first


def _experiment(client: "MlflowClient", name: str, tracking: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    path = sqlite_file(tracking)
    # MLflow would put the files of a SQLite store into ./mlruns of whoever calls.
    beside = None if path is None else (path.resolve().parent / "artifacts" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=beside))


def _close_open_runs(client: "MlflowClient", experiment: str, entry: Entry) -> None:
    same = f"tags.`holdfast.model_digest` = '{entry.model_digest}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment], same):
        client.set_terminated(run.info.run_id, "KILLED")


def _open_run(client: "MlflowClient", experiment: str, entry: Entry) -> str:
    tags = {**entry.tags, "mlflow.note.content": shorten(entry.description)}
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
        data = Dataset(name=name, digest=digest[:36], source_type="holdfast", source=json.dumps({"snapshot": digest}))
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


def shorten(text: str) -> str:
    """At most what MLflow's description holds, cut at the end of a line."""
    if len(text) <= MAX_DESCRIPTION:
        return text
    return text[:MAX_DESCRIPTION].rpartition("\n")[0] + "\n\n… the rest is in `decision.md`"


def _key(name: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^A-Za-z0-9_\-./: ]", "_", name)


def _public(tracking: str) -> str:
    """The URI without what stands before its `@`."""
    return re.sub(r"://[^/@]*@", "://", tracking)


def _line(error: BaseException) -> str:
    """One line: of a failed request the cause, which stands last and is all that a person needs."""
    text = " ".join(str(error).split())
    cause = re.search(r"\(Caused by \w+\((.*)\)\)$", text)
    text = re.sub(r"^['\"]|['\"]$", "", cause[1].rpartition("): ")[2] or cause[1]) if cause else text
    return _public(text[:200] + ("…" if len(text) > 200 else ""))
