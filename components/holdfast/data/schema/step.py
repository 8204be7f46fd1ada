"""Reads a snapshot and the schema that judges it, writes the anomalies."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from holdfast.artifacts.contract import other_kinds
from holdfast.artifacts.documents import Anomaly, Baseline, InputSpec, SchemaReport, Snapshot, Verdict
from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, load, save
from holdfast.artifacts.regular import open_regular
from holdfast.data.schema import contract
from holdfast.data.schema.domains import Domain, domains_of, observe, united
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.modality.protocol import SplitName
from holdfast.model.champion import champion_of
from holdfast.steps import by_role
from holdfast.tables import table_blocks
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
    seen = _see(data, config, known, out)
    statistics = [one.statistics for one in seen.values()]
    judge = _given(config) or _champions(champion) or _inferred(data, seen["train"], seen["test"])
    found = {split: contract.validate(one.statistics, judge.schema, judge.name) for split, one in seen.items()}
    anomalies = _report(found["train"], found["test"])
    if judge.source == "champion":
        anomalies += _other_kinds(data.document, known, {anomaly.column for anomaly in anomalies})
    report = SchemaReport(
        inputs=by_role(data, champion) | judge.pin,
        source=judge.source,
        reviewed_by=config.reviewed_by,
        columns=len(seen["train"].observed),
        rows=sum(one.rows for one in seen.values()),
        anomalies=anomalies,
        verdict=Verdict.FAIL if anomalies else Verdict.PASS,
    )
    files = {
        "statistics.pb": contract.as_bytes(statistics),
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
    with open_regular(Path(config.path), "a schema", links=True) as stream:
        text = stream.read(contract.MAX_SCHEMA_BYTES + 1)
    parsed = contract.parse_schema(text, config.path)
    return _Judge("given", config.path, parsed, {"schema": sha256(text).hexdigest()})


def _champions(champion: Artifact[Baseline] | None) -> _Judge | None:
    if champion is None or not champion.document.present:
        return None
    name = str(champion.folder / "schema.pbtxt")
    return _Judge("champion", name, contract.parse_schema(champion.open("schema.pbtxt").getvalue(), name), {})


def _inferred(data: Artifact[Snapshot], train: "_Seen", test: "_Seen") -> _Judge:
    # A rare category of the held-out rows is no anomaly of its own delivery: the domains are those of all rows.
    together = domains_of(data.document, united(train.observed, test.observed))
    return _Judge("inferred", "the inferred schema", contract.infer(train.statistics, together), {})


@dataclass(frozen=True)
class _Seen:
    """What the rows of a split are like."""

    rows: int
    observed: dict[str, Domain]
    statistics: contract.Statistics


def _see(
    data: Artifact[Snapshot], config: SchemaConfig, champion: InputSpec | None, out: Path
) -> dict[SplitName, _Seen]:
    absent = _absent_indicators(data.document, champion)
    tables = {split: _indicating(table_blocks(data, split), absent) for split in SPLITS}
    if config.runner is None:
        return {split: _see_here(table, split) for split, table in tables.items()}
    _check_runner(data, config)
    statistics = _by_runner(data, config, absent, out)
    return {split: _Seen(*_observe(table), statistics[split]) for split, table in tables.items()}


def _see_here(tables: Iterable["pd.DataFrame"], split: SplitName) -> _Seen:
    growing = contract.GrowingStatistics()
    rows, observed = _observe(growing.passing(tables))
    return _Seen(rows, observed, growing.statistics(split))


def _observe(tables: Iterable["pd.DataFrame"]) -> tuple[int, dict[str, Domain]]:
    """How many rows there are, and what their columns hold."""
    counted = [(len(table), observe(_arrays(table))) for table in tables]
    return sum(rows for rows, _ in counted), reduce(united, (observed for _, observed in counted))


def _check_runner(data: Artifact[Snapshot], config: SchemaConfig) -> None:
    modality = modality_of(data.document.modality)
    if config.runner is not None and (modality.storage != "parquet" or modality.one_column):
        raise InputError(f"schema.runner: expected a workload of tables with it, found {data.document.modality}")


def _by_runner(
    data: Artifact[Snapshot], config: SchemaConfig, absent: tuple[str, ...], out: Path
) -> dict[SplitName, contract.Statistics]:
    from holdfast.data.schema.beam import statistics_by

    assert config.runner is not None, "asked for"
    out.parent.mkdir(parents=True, exist_ok=True)
    tables = {split: data.path(f"{split}.parquet") for split in SPLITS}
    # Next to the artifact, because workers on other machines see that volume.
    with TemporaryDirectory(prefix=f".{out.name}.", suffix=".beam", dir=out.parent) as folder:
        return statistics_by(config.runner, config.runner_options, tables, Path(folder), absent)


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


def _absent_indicators(data: Snapshot, champion: InputSpec | None) -> tuple[str, ...]:
    """The columns for missing cells that the champion knows, and this delivery, where none are, does not have."""
    delivered = {column.name for column in data.columns}
    columns = () if champion is None else champion.columns
    return tuple(column.name for column in columns if column.indicates in delivered and column.name not in delivered)


def _indicating(tables: Iterable["pd.DataFrame"], absent: tuple[str, ...]) -> Iterator["pd.DataFrame"]:
    """The tables with columns of zeros for indicators that are absent."""
    return (table.assign(**dict.fromkeys(absent, 0.0)) for table in tables)


def _other_kinds(data: Snapshot, champion: InputSpec | None, named: set[str]) -> tuple[Anomaly, ...]:
    """Columns that the champion reads as another kind, where TFDV, which knows texts and numbers, found nothing."""
    found = () if champion is None else other_kinds(champion, data.columns)
    return tuple(
        Anomaly(column=column, kind=OTHER_KIND, detail=detail) for column, detail in found if column not in named
    )
