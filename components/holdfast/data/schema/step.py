"""Reads a snapshot and the schema that judges it, writes the anomalies."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from holdfast.artifacts.contract import other_kinds
from holdfast.artifacts.documents import Anomaly, Baseline, InputSpec, SchemaReport, Snapshot, Verdict
from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, load, save
from holdfast.data.schema import contract
from holdfast.data.schema.domains import domains, stack
from holdfast.errors import InputError
from holdfast.modality.protocol import SplitName
from holdfast.model.champion import champion_of
from holdfast.steps import by_role
from holdfast.tables import read_table
from holdfast.workload.schema import SchemaConfig

if TYPE_CHECKING:
    import pandas as pd

SPLITS: tuple[SplitName, SplitName] = ("train", "test")
OTHER_KIND = "UNEXPECTED_DATA_TYPE"
"""As TFDV calls it."""


def schema(snapshot: Ref, out: Path, *, config: SchemaConfig, baseline: Ref | None) -> Artifact[SchemaReport]:
    """Holds training and held-out rows against the given schema, else the champion's, else one inferred from them.

    Raises:
        InputError: the given schema cannot be read, or TFDV refuses it.
        ArtifactError: snapshot or baseline are incomplete or altered.
    """
    data = load(snapshot, Snapshot)
    champion = load(baseline, Baseline) if baseline is not None else None
    known = _champions_input(champion)
    tables: dict[str, pd.DataFrame] = {split: _indicating(read_table(data, split), known) for split in SPLITS}
    statistics = {split: contract.statistics_of(table, split) for split, table in tables.items()}
    judge = _given(config) or _champions(champion) or _inferred(data, statistics["train"], tables)
    found = {split: contract.validate(part, judge.schema, judge.name) for split, part in statistics.items()}
    anomalies = _report(found["train"], found["test"])
    if judge.source == "champion":
        anomalies += _other_kinds(data.document, known, {anomaly.column for anomaly in anomalies})
    report = SchemaReport(
        inputs=by_role(data, champion) | judge.pin,
        source=judge.source,
        reviewed_by=config.reviewed_by,
        columns=len(tables["train"].columns),
        rows=sum(len(table) for table in tables.values()),
        anomalies=anomalies,
        verdict=Verdict.FAIL if anomalies else Verdict.PASS,
    )
    files = {
        "statistics.pb": contract.as_bytes(statistics.values()),
        "schema.pbtxt": contract.as_text(judge.schema),
        "anomalies.pbtxt": contract.as_text(contract.merged(found.values())),
    }
    return save(out, report, files)


@dataclass(frozen=True)
class _Judge:
    """The schema that decides, where it came from, what messages call it, and its pin when it is a file of its own."""

    source: Literal["inferred", "champion", "given"]
    name: str
    schema: contract.Schema
    pin: dict[str, str]


def _given(config: SchemaConfig) -> _Judge | None:
    if config.path is None:
        return None
    try:
        with Path(config.path).open("rb") as stream:
            text = stream.read(contract.MAX_SCHEMA_BYTES + 1)
    except OSError as error:
        raise InputError(f"{config.path}: expected a schema, found none that can be read ({error.strerror})") from None
    parsed = contract.parse_schema(text, config.path)
    return _Judge("given", config.path, parsed, {"schema": sha256(text).hexdigest()})


def _champions(champion: Artifact[Baseline] | None) -> _Judge | None:
    if champion is None or not champion.document.present:
        return None
    name = str(champion.folder / "schema.pbtxt")
    return _Judge("champion", name, contract.parse_schema(champion.open("schema.pbtxt").getvalue(), name), {})


def _inferred(data: Artifact[Snapshot], statistics: contract.Statistics, tables: dict[str, "pd.DataFrame"]) -> _Judge:
    # A rare category of the held-out rows is no anomaly of its own delivery: the domains are those of all rows.
    together = stack([_arrays(table) for table in tables.values()])
    inferred = contract.infer(statistics, domains(data.document, together))
    return _Judge("inferred", "the inferred schema", inferred, {})


def _arrays(table: "pd.DataFrame") -> dict[str, NDArray[Any]]:
    return {str(name): table[name].to_numpy() for name in table.columns}


def _report(train: contract.Anomalies, test: contract.Anomalies) -> tuple[Anomaly, ...]:
    """What is wrong with the training rows, and what only the held-out rows show."""
    found = contract.listed(train)
    known = {(anomaly.column, anomaly.kind) for anomaly in found}
    only_test = [a for a in contract.listed(test, where="held-out rows: ") if (a.column, a.kind) not in known]
    return tuple(found + only_test)


def _champions_input(champion: Artifact[Baseline] | None) -> InputSpec | None:
    """What the champion reads; None where there is no champion."""
    if champion is None or f"model/{DOCUMENT}" not in champion.document.files:
        return None
    model = champion_of(champion)
    return None if model is None else model.document.input


def _indicating(table: "pd.DataFrame", champion: InputSpec | None) -> "pd.DataFrame":
    """The table with a column of zeros for missing cells that the champion knows and this delivery does not have."""
    columns = () if champion is None else champion.columns
    absent = [column.name for column in columns if column.indicates in table and column.name not in table]
    return table.assign(**dict.fromkeys(absent, 0.0))


def _other_kinds(data: Snapshot, champion: InputSpec | None, named: set[str]) -> tuple[Anomaly, ...]:
    """Columns that the champion reads as another kind, where TFDV, which knows texts and numbers, found nothing."""
    found = () if champion is None else other_kinds(champion, data.columns)
    return tuple(
        Anomaly(column=column, kind=OTHER_KIND, detail=detail) for column, detail in found if column not in named
    )
