"""TFDV through Apache Beam, on the runner of the user's choice, for tables that one process should not read.

A runner on other machines must reach the rows: with a `temp_location` that has a scheme, such as `gs://`, they are
copied there; else its workers see the snapshot's own folder (a shared volume).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.data.quiet import quiet
from holdfast.data.schema import contract
from holdfast.errors import InputError
from holdfast.modality.protocol import SplitName
from holdfast.workload.schema import BeamRunner, RunnerOption

RUNNERS: dict[BeamRunner, str] = {
    "direct": "DirectRunner", "flink": "FlinkRunner", "spark": "SparkRunner", "dataflow": "DataflowRunner"
}  # fmt: skip
_DEFAULTS: dict[BeamRunner, dict[str, RunnerOption]] = {
    "direct": {"direct_running_mode": "multi_processing", "direct_num_workers": 0}
}
_ROWS = 2**16
"""Rows that TFDV looks at together."""


def statistics_by(
    runner: BeamRunner,
    options: Mapping[str, RunnerOption],
    tables: Mapping[SplitName, Path],
    folder: Path,
    absent: Sequence[str] = (),
) -> dict[SplitName, contract.Statistics]:
    """TFDV's statistics of Parquet files, computed by `runner` in one pipeline; `folder` is for files in between.

    The rows are as if they had columns of zeros by the names in `absent`.

    Raises:
        InputError: an option that Beam does not know or misses, or a runner that cannot be started here.
    """
    from apache_beam.io.filesystems import FileSystems

    places = {split: _places(options, parquet, folder, split) for split, parquet in tables.items()}
    with quiet():
        built = pipeline(runner, options, places.values(), absent)
        try:
            built.run().wait_until_finish()
        except (RuntimeError, OSError, ValueError, ImportError) as error:
            raise InputError(f"schema.runner: {runner}: expected it to run, found {_short(error)}") from None
    found = {}
    for split, (_, result) in places.items():
        with FileSystems.open(result) as stream:
            found[split] = contract.named(contract.parse_statistics(stream.read()), split)
    return found


def pipeline(
    runner: BeamRunner,
    options: Mapping[str, RunnerOption],
    places: Iterable[tuple[str, str]],
    absent: Sequence[str] = (),
) -> Any:
    """The pipeline from Parquet files to files of statistics, each pair by itself; checked but not run.

    Raises:
        InputError: an option that Beam does not know or misses, or a runner whose libraries are not installed.
    """
    import apache_beam as beam
    from apache_beam.io.parquetio import ReadAllFromParquetBatched

    tfdv = contract.library()
    try:
        built = beam.Pipeline(options=pipeline_options(runner, options))
    except (ValueError, ImportError, AttributeError) as error:
        raise InputError(f"schema.runner: {runner}: expected options that suffice, found {_short(error)}") from None
    for number, (source, result) in enumerate(places):
        rows = built | f"file {number}" >> beam.Create([source]) | f"rows {number}" >> ReadAllFromParquetBatched()
        cells = rows | f"blocks {number}" >> beam.FlatMap(blocks, tuple(absent))
        statistics = cells | f"statistics {number}" >> tfdv.GenerateStatistics(tfdv.StatsOptions())
        _ = statistics | f"write {number}" >> tfdv.WriteStatisticsToBinaryFile(result)
    return built


def pipeline_options(runner: BeamRunner, options: Mapping[str, RunnerOption]) -> Any:
    """Beam's options from the workload's: `{key: value}` is what `--key=value` is on a command line.

    Raises:
        InputError: an option that Beam does not know.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    given = {**_DEFAULTS.get(runner, {}), **options}
    flags = [f"--runner={RUNNERS[runner]}", *(flag for key, value in given.items() for flag in _flags(key, value))]
    try:
        with quiet():
            found = PipelineOptions(flags)
            known = found.get_all_options()
    except SystemExit:  # argparse, on a value of the wrong type
        raise InputError(f"schema.runner_options: expected values that Beam takes, found {dict(options)}") from None
    for key in options:
        if key not in known:
            raise InputError(f"schema.runner_options: expected options of Apache Beam, found {key!r}")
    return found


def blocks(rows: Any, absent: tuple[str, ...] = ()) -> list[Any]:
    """A row group as TFDV takes it: record batches of a bounded size, with zeros in the columns that are absent."""
    import numpy as np

    for name in absent:
        rows = rows.append_column(name, [np.zeros(len(rows))])
    return [contract.as_lists(batch) for batch in rows.to_batches(max_chunksize=_ROWS)]


def _flags(key: str, value: RunnerOption) -> list[str]:
    if isinstance(value, bool):
        return [f"--{key}"] if value else []
    if isinstance(value, tuple):
        return [f"--{key}={one}" for one in value]
    return [f"--{key}={value}"]


def _places(options: Mapping[str, RunnerOption], parquet: Path, folder: Path, name: str) -> tuple[str, str]:
    """Where the runner finds the rows and leaves the statistics."""
    shared = str(options.get("temp_location", ""))
    if "://" not in shared:
        return str(parquet.absolute()), str((folder / f"{name}.pb").absolute())
    from apache_beam.io.filesystems import FileSystems

    place = FileSystems.join(shared, folder.name)
    source = FileSystems.join(place, parquet.name)
    try:
        with FileSystems.open(str(parquet)) as rows, FileSystems.create(source) as copy:
            while block := rows.read(2**24):
                copy.write(block)
    except (ValueError, OSError) as error:
        raise InputError(
            f"schema.runner_options: temp_location: expected a place to write to, found {_short(error)}"
        ) from None
    return source, FileSystems.join(place, f"{name}.pb")


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
