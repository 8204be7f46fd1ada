"""TensorFlow Data Validation: statistics of a table, a schema, and what breaks it.

Caveness et al., TensorFlow Data Validation: Data Analysis and Validation in Continuous ML Pipelines (SIGMOD 2020).
Its numeric drift comparator is not used: on equal distributions it reports up to 0.24 and does not shrink with n.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from holdfast.artifacts.documents import Anomaly
from holdfast.data.quiet import quiet
from holdfast.data.schema.domains import Domain, NumberDomain
from holdfast.errors import InputError, LimitError

if TYPE_CHECKING:
    import pandas as pd

MAX_SCHEMA_BYTES = 2**20
Statistics = Any
"""`DatasetFeatureStatisticsList` with one dataset."""
Schema = Any
"""`tensorflow_metadata.proto.v0.schema_pb2.Schema`."""
Anomalies = Any
"""`tensorflow_metadata.proto.v0.anomalies_pb2.Anomalies`."""


def library() -> Any:
    """The `tensorflow_data_validation` module; the first call takes seconds."""
    with quiet():
        import tensorflow_data_validation as tfdv
    return tfdv


class GrowingStatistics:
    """TFDV's statistics of a table that comes a block at a time; one block gives what `generate_statistics` gives."""

    def __init__(self) -> None:
        library()
        from tensorflow_data_validation.statistics import stats_impl

        options = library().StatsOptions()
        # In memory: from_csv takes thirty times as long, and n_jobs starts TensorFlow once more per process.
        self._finish, self._generators = stats_impl.extract_statistics_output, stats_impl.get_generators(options, True)
        self._states = [generator.create_accumulator() for generator in self._generators]

    def add(self, table: "pd.DataFrame") -> None:
        """Takes the next rows."""
        import pyarrow as pa

        rows = as_lists(pa.RecordBatch.from_pandas(table))
        self._states = [
            generator.add_input(state, rows) for generator, state in zip(self._generators, self._states, strict=True)
        ]

    def passing(self, tables: Iterable["pd.DataFrame"]) -> Iterator["pd.DataFrame"]:
        """The tables again, each added before it is given."""
        for table in tables:
            self.add(table)
            yield table

    def statistics(self, name: str) -> Statistics:
        """Of all rows; the dataset in them is called `name`."""
        return named(self._finish(self._states, self._generators), name)


def as_lists(rows: Any) -> Any:
    """A record batch as TFDV takes it: each cell a list of one value."""
    from tfx_bsl.arrow import table_util

    return table_util.CanonicalizeRecordBatch(rows)


def named(statistics: Statistics, name: str) -> Statistics:
    """Statistics of one dataset, under this name."""
    statistics.datasets[0].name = name
    return statistics


def parse_statistics(data: bytes) -> Statistics:
    """Statistics from their binary form."""
    from tensorflow_metadata.proto.v0 import statistics_pb2

    return statistics_pb2.DatasetFeatureStatisticsList.FromString(data)


def infer(statistics: Statistics, domains: Mapping[str, Domain]) -> Schema:
    """The schema that TFDV infers, every column required, each within its domain."""
    schema = library().infer_schema(statistics, infer_feature_shape=False)
    del schema.string_domain[:]
    for feature in schema.feature:
        feature.ClearField("domain_info")
        feature.presence.min_fraction = 1.0
        _set_domain(feature, domains[feature.name])
    return schema


def parse_schema(text: bytes, name: str) -> Schema:
    """A schema from its text form; `name` is what messages call the file.

    Raises:
        LimitError: more than a mebibyte.
        InputError: not a `tensorflow.metadata.v0.Schema` in text form.
    """
    if len(text) > MAX_SCHEMA_BYTES:
        raise LimitError(f"{name}: expected a schema of at most {MAX_SCHEMA_BYTES} bytes, found more")
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = schema_pb2.Schema()
    try:
        text_format.Parse(text.decode(), schema)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: expected a TFMD schema in text form, found {_first_line(error)}") from None
    except RecursionError:
        raise InputError(f"{name}: expected a TFMD schema in text form, found nesting without end") from None
    return schema


def validate(statistics: Statistics, schema: Schema, name: str) -> Anomalies:
    """How the statistics break the schema; `name` is what messages call the schema's file.

    Raises:
        InputError: TFDV refuses the schema itself.
    """
    try:
        return library().validate_statistics(statistics, schema)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{name}: expected a schema that TFDV accepts, found {_first_line(error)}") from None


def listed(anomalies: Anomalies, *, where: str = "") -> list[Anomaly]:
    """Each reason of each column's anomaly, by column; `where` comes before the detail."""
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    kinds = anomalies_pb2.AnomalyInfo.Type
    found = [(column, info) for column, info in sorted(anomalies.anomaly_info.items())]
    if anomalies.HasField("dataset_anomaly_info"):
        found.append(("", anomalies.dataset_anomaly_info))
    return [
        Anomaly(column=column, kind=kinds.Name(reason.type), detail=f"{where}{_one_line(reason.description)}")
        for column, info in found
        for reason in info.reason
    ]


def merged(parts: Iterable[Anomalies]) -> Anomalies:
    """All anomalies in one message; of a column that has some in several parts, those of the first."""
    first, *others = parts
    for other in others:
        for column, info in other.anomaly_info.items():
            if column not in first.anomaly_info:
                first.anomaly_info[column].CopyFrom(info)
    return first


def as_text(message: Any) -> bytes:
    """The text form, equal for equal messages."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(message)).encode()


def as_bytes(parts: Iterable[Statistics]) -> bytes:
    """Several statistics as one `DatasetFeatureStatisticsList` in binary form, equal for equal statistics."""
    first, *others = parts
    together = type(first)()
    for part in (first, *others):
        together.datasets.extend(part.datasets)
    return bytes(together.SerializeToString(deterministic=True))


def _set_domain(feature: Any, domain: Domain) -> None:
    if isinstance(domain, NumberDomain):
        feature.float_domain.min = domain.lower
        feature.float_domain.max = domain.upper
    else:
        feature.string_domain.value.extend(domain.names)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _first_line(error: Exception) -> str:
    return _one_line(str(error))[:200] or type(error).__name__
