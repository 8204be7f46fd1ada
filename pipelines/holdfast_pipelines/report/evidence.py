"""Reads one run: `run.json` and the artifacts of its steps, each with its digest checked at the moment it is read."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from holdfast.artifacts.documents import Document, DriftReport, Model, RolloutRecord
from holdfast.artifacts.folder import Artifact, Ref, load, read_bounded
from holdfast.artifacts.inspect import verdict_of
from holdfast.artifacts.timeline import Sample
from holdfast.errors import ArtifactError, IntegrityError
from holdfast.steps import possible
from holdfast_pipelines.record import MAX_RECORD_BYTES, RECORD, RunResult, StepRecord

KINDS: Mapping[str, type[Document]] = {step.name: step.document for step in possible()}
"""What each step of the pipeline writes, in the order of the pipeline."""

D = TypeVar("D", bound=Document)
T = TypeVar("T")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class CurvePoint(_Record):
    """One row of `curve.json`; `clean` and `robust` count correct ones of `rows`."""

    epoch: int
    loss: float
    clean: int = Field(ge=0)
    robust: int = Field(ge=0)
    rows: int = Field(gt=0)


class Distribution(_Record):
    """One column of `distributions.json`: counts per bin between `edges`, or per category."""

    reference: tuple[float, ...]
    current: tuple[float, ...]
    edges: tuple[float, ...] = ()
    categories: tuple[str | float, ...] = ()

    @model_validator(mode="after")
    def _same_bins(self) -> Self:
        bins = len(self.edges) - 1 if self.edges else len(self.categories)
        if not len(self.reference) == len(self.current) == bins:
            raise ValueError(f"{len(self.reference)} and {len(self.current)} counts for {bins} bins")
        return self


class Distributions(_Record):
    """What `distributions.json` holds."""

    columns: dict[str, Distribution] = {}


@dataclass(frozen=True)
class LoadedRun:
    """One run with the documents of the steps that were carried out."""

    folder: Path
    record: RunResult
    artifacts: Mapping[str, Artifact[Document]]

    def artifact(self, kind: type[D]) -> Artifact[D] | None:
        """The artifact of that kind, or None when its step was not carried out."""
        for found in self.artifacts.values():
            if isinstance(found.document, kind):
                return Artifact(found.folder, found.document, found.digest)
        return None

    def document(self, kind: type[D]) -> D | None:
        """The document of that kind, or None when its step was not carried out."""
        found = self.artifact(kind)
        return found.document if found else None

    def step(self, name: str) -> StepRecord | None:
        """The record of one step."""
        return next((step for step in self.record.steps if step.step == name), None)

    def verdict(self, name: str) -> str | None:
        """The verdict in the step's own document; None when it was not carried out."""
        found = self.artifacts.get(name)
        return verdict_of(found.document) if found else None


def read_run(folder: Path) -> LoadedRun:
    """Reads a run folder.

    Raises:
        ArtifactError: `run.json` is missing or malformed, or a step's artifact is.
        IntegrityError: an artifact is not the one that the run made.
    """
    record = _read_record(folder / RECORD)
    artifacts = {step.step: _read_step(folder, step) for step in record.steps if step.folder and step.step in KINDS}
    return LoadedRun(folder, record, artifacts)


def read_epochs(artifact: Artifact[Model]) -> tuple[CurvePoint, ...]:
    """The learning curve of a model; empty when there is none."""
    return _read_json(artifact, "curve.json", TypeAdapter(tuple[CurvePoint, ...]), ())


def read_distributions(artifact: Artifact[DriftReport]) -> Mapping[str, Distribution]:
    """Column -> its distributions in a drift report; empty when there are none."""
    return _read_json(artifact, "distributions.json", TypeAdapter(Distributions), Distributions()).columns


def read_timeline(artifact: Artifact[RolloutRecord]) -> tuple[Sample, ...]:
    """The samples of a rollout in the order of time; empty when there are none."""
    return _read_json(artifact, "timeline.json", TypeAdapter(tuple[Sample, ...]), ())


def read_arrays(artifact: Artifact[D], name: str) -> dict[str, NDArray[Any]]:
    """The arrays of the pinned NPZ file `name`; none when the artifact has no such file. Never unpickles."""
    if name not in artifact.document.files:
        return {}
    try:
        with np.load(artifact.open(name), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{artifact.folder / name}: expected an NPZ file, found {error}") from None


def read_rows(artifact: Artifact[D], name: str) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Column names and rows of the pinned Parquet file `name`; empty when the artifact has no such file."""
    if name not in artifact.document.files:
        return (), []
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(artifact.open(name).getvalue()))
    columns = [column.to_pylist() for column in table.columns]
    return tuple(table.column_names), list(zip(*columns, strict=True))


def _read_json(artifact: Artifact[D], name: str, kind: TypeAdapter[T], missing: T) -> T:
    if name not in artifact.document.files:
        return missing
    try:
        return kind.validate_json(artifact.open(name).getvalue())
    except ValidationError as error:
        raise ArtifactError(f"{artifact.folder / name}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"expected what its step writes, found {first['msg']} at {where or 'the top'}"


def _read_record(path: Path) -> RunResult:
    data = read_bounded(path, MAX_RECORD_BYTES, "the record of a run")
    try:
        return TypeAdapter(RunResult).validate_json(data)
    except ValidationError as error:
        raise ArtifactError(f"{path}: {_first(error)}") from None


def _read_step(run: Path, step: StepRecord) -> Artifact[Document]:
    place = PurePosixPath(step.folder or "")
    if place.is_absolute() or ".." in place.parts:
        raise ArtifactError(f"{run / RECORD}: expected a folder inside the run, found {step.folder!r}")
    if step.digest is None:
        raise ArtifactError(f"{run / RECORD}: expected the digest of step {step.step}, found none")
    artifact = load(Ref(run / place, step.digest), KINDS[step.step])
    found = verdict_of(artifact.document)
    if step.verdict is not None and step.verdict != found:
        raise IntegrityError(
            f"{run / RECORD}: expected verdict {found} of step {step.step}, as in its document, found {step.verdict}"
        )
    return artifact
