"""From a workload file to the parameters of the pipelines: the same ones on this machine and on a cluster."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from holdfast.artifacts.documents import ExtractionReport, GuardCalibration, Scalar, SchemaReport, Snapshot
from holdfast.artifacts.folder import Ref
from holdfast.errors import InputError, WorkloadError
from holdfast.quarantine.reviews import find_review
from holdfast.steps import ON_REQUEST, STEPS, names, role_of, writer
from holdfast.wording import without_credentials
from holdfast.workload.addresses import is_remote, kind_of
from holdfast.workload.paths import absolute, own_functions
from holdfast.workload.schema import ExtractConfig, GuardConfig, Section, Workload, read_workload
from holdfast_pipelines.cluster import ClusterSettings

if TYPE_CHECKING:
    from holdfast_gates.policy import Policy

Parameters = dict[str, str | int]
_DELIVERED = ("data.source", "data.test", "data.review", "schema.path")


@dataclass(frozen=True)
class Settings:
    """What a run adds to its workload."""

    tracking: str
    seed: int = 0
    device: str = "auto"
    threads: int = 1
    trust: str = ""
    """A trust policy, by its path in the pods of a cluster; empty: none."""
    because: str = ""
    """The request of a monitor that the run answers, as JSON; empty: it answers none."""


def retrain_parameters(workload: Workload, folder: Path, settings: Settings) -> Parameters:
    """The parameters of the `retrain` pipeline; `folder` is the one of the workload file.

    Raises:
        WorkloadError: the gate's policy is unknown or cannot take the workload's overrides.
    """
    from holdfast_gates.policy import resolve

    policy = resolve(workload.gate, folder)
    # What the policy allows the gate is what training may do, and what it asks of copies is what is measured.
    gate = workload.gate.model_copy(update={"allow_new_contract": policy.allow_new_contract})
    workload = workload.model_copy(update={"gate": gate, "extract": _copies(workload.extract, policy)})
    return {
        "name": workload.name,
        "tracking": settings.tracking,
        "policy": policy.to_json(),
        "trust": settings.trust,
        "because": settings.because,
        **_sections(workload, asked(workload, policy)),
        "seed": settings.seed,
        "device": settings.device,
        "threads": settings.threads,
    }


def asked(workload: Workload, policy: "Policy") -> tuple[str, ...]:
    """The steps that this run makes besides the usual: what a check of the policy reads, and what the guard needs."""
    from holdfast_gates.rules import RULES

    roles = {role_of(rule.reads) for name, rule in RULES.items() if getattr(policy.checks, name) is not None}
    roles |= set() if workload.guard == GuardConfig() else {role_of(GuardCalibration)}
    roles |= {role_of(ExtractionReport)} if workload.guard.budget == "auto" else set()
    return names(step for step in ON_REQUEST if step.role in roles)


def asked_by(parameters: Parameters) -> tuple[str, ...]:
    """The same, of the parameters of a run."""
    return names(step for step in ON_REQUEST if f"{step.name}_config" in parameters)


def _copies(config: ExtractConfig, policy: "Policy") -> ExtractConfig:
    """How the model is copied, up to the number of queries that a check of the policy names, and to its limit."""
    check = policy.checks.extraction_agreement
    if check is None:
        return config
    queries = tuple(sorted({*config.queries, check.at_queries}))
    return config.model_copy(update={"queries": queries, "agreement_at_most": check.at_most})


def _sections(workload: Workload, more: tuple[str, ...]) -> Parameters:
    """The section of each step of `retrain` that has one."""
    steps = [step for step in STEPS if step.pipeline == "retrain" and step.config]
    steps += [step for step in ON_REQUEST if step.name in more]
    return {f"{step.name}_config": _json(getattr(workload, step.config)) for step in steps}


def rollout_parameters(workload: Workload, version: int, settings: Settings, game_day: str | None = None) -> Parameters:
    """The parameters of the `rollout` pipeline; what the workload's plan leaves out, the step takes from the policy."""
    return {
        "name": workload.name,
        "version": version,
        "tracking": settings.tracking,
        "config": _json(workload.rollout),
        "seed": settings.seed,
        "game_day": game_day or "",
        "trust": settings.trust,
    }


def read(path: Path, overrides: Mapping[str, Any] | None = None) -> Workload:
    """The workload of the file `path`, with values replaced by key, as in `{"scan.apply": False}`.

    Raises:
        WorkloadError: the file or an override is not valid.
    """
    workload = read_workload(path)
    if not overrides:
        return workload
    values = workload.model_dump(mode="json", by_alias=True)
    for key, value in overrides.items():
        *sections, last = key.split(".")
        place: Any = values
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise WorkloadError(f"{path}: override {key}: expected the key of a value in a section, found none")
        place[last] = value
    try:
        return Workload.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WorkloadError(f"{path}: override {where}: {first['msg']}, found {str(first['input'])[:60]!r}") from None


def with_data(workload: Workload, data: str) -> Workload:
    """The workload with another source; what finds or pins the workload's own delivery goes with it.

    Raises:
        WorkloadError: no source.
    """
    try:
        kind_of(data)
    except ValueError as error:
        raise WorkloadError(f"--data: {error}, found {without_credentials(data)[:60]!r}") from None
    instead = {"source": data, "sha256": None, "format": "auto", "newest": None, "query": None, "key": ()}
    return workload.model_copy(update={"data": workload.data.model_copy(update=instead)})


def moves(workload: Workload) -> bool:
    """Whether the source holds other data at another time, so that a snapshot of it is never the same for sure."""
    return workload.data.newest is not None or workload.data.query is not None


def located(workload: Workload, folder: Path) -> Workload:
    """The workload with every path in it absolute: in the file they are relative to `folder`.

    A review is pinned by its digest: the newest of a folder is the newest now.

    Raises:
        InputError: a file that is not there.
        ArtifactError: a review that is not there.
    """
    found = absolute(workload, folder)
    for name in _named_files(found):
        _check_file(name)
    review = _pinned(found.data.review)
    return found.model_copy(update={"data": found.data.model_copy(update={"review": review})})


def file_pins(workload: Workload) -> dict[str, str]:
    """For every file that a located workload names: its path -> its name and digest."""
    paths = _named_files(workload)
    review = {} if workload.data.review is None else {str(Ref.parse(workload.data.review).folder): "review"}
    return {str(path): f"{path.name}@{_sha256(path)}" for path in paths} | review


def own_code(workload: Workload, folder: Path) -> list[Path]:
    """The Python files that a network or an attack `module:function` may come from.

    They are the files next to the workload, and the packages that are named.
    """
    modules = [name.partition(":")[0] for name in own_functions(workload)]
    if not modules:
        return []
    packages = sorted({folder / module.partition(".")[0] for module in modules})
    return [*folder.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))]


def for_cluster(workload: Workload, settings: ClusterSettings) -> Workload:
    """The workload, when the pods can read what it names.

    Raises:
        WorkloadError: a path that no volume of the step's pod holds, or a URL that nothing pins.
    """
    reads = writer(Snapshot).name
    named: dict[str, tuple[str, Scalar | None]] = {
        "data.source": (reads, workload.data.source),
        "data.test": (reads, workload.data.test),
        "data.review": (reads, workload.data.review),
        "schema.path": (writer(SchemaReport).name, workload.schema_.path),
    }
    for key, (step, name) in named.items():
        if isinstance(name, str) and not is_remote(name):
            check_mounted(key, name, step, settings)
    kind, shown = kind_of(workload.data.source), without_credentials(workload.data.source)
    if kind == "url" and workload.data.sha256 is None:
        raise WorkloadError(f"data.source {shown}: expected data.sha256 with a URL, found none; downloads are pinned")
    _check_login(kind, shown, settings)
    if kind == "bucket" and workload.data.sha256 is None and workload.data.newest is None:
        raise WorkloadError(
            f"data.source {shown}: expected data.newest or data.sha256 with an object store, found none"
        )
    return workload


def _check_login(kind: str, shown: str, settings: ClusterSettings) -> None:
    """A store or a database has its credentials, by reference to a secret."""
    variables = {variable for one in settings.source_secrets for variable in one.variables.values()}
    if kind == "database" and shown.removeprefix("env:") not in variables:
        raise WorkloadError(
            f"data.source {shown}: expected the secret with the database's URL "
            f"(--source-secret SECRET:KEY={shown.removeprefix('env:')}), found none"
        )
    if kind == "bucket" and not (settings.source_secrets or settings.source_identity):
        raise WorkloadError(
            f"data.source {shown}: expected the secret with its credentials (--source-secret SECRET:KEY=VARIABLE), or "
            "--source-identity where the pods' own account may read it, found neither"
        )


def check_mounted(key: str, name: str, step: str, settings: ClusterSettings) -> None:
    """A place is on a volume of the step.

    Raises:
        WorkloadError: it is on none.
    """
    places = [mount.path for mount in settings.mounts(step)]
    if not any(PurePosixPath(name).is_relative_to(place) for place in places):
        expected = "sklearn:NAME, an address (https, s3, gs, az) or the absolute path of a file"
        expected = expected if key in _DELIVERED else "the absolute path of a folder"
        raise WorkloadError(
            f"{key}: expected {expected} on a volume of the step {step} (--volume CLAIM:PATH), found {name!r}; its "
            f"volumes: {', '.join(places) or 'none'}"
        )


def _json(section: Section) -> str:
    return section.model_dump_json(by_alias=True)


def _named_files(workload: Workload) -> list[Path]:
    source = None if moves(workload) else workload.data.source
    named = (source, workload.data.test, workload.schema_.path)
    return [Path(name) for name in named if name is not None and not is_remote(name)]


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: expected a file that the workload names, found none; give the data with --data")


def _pinned(name: str | None) -> str | None:
    if name is None:
        return None
    found = find_review(name)
    return f"{found.folder}@{found.digest}"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
