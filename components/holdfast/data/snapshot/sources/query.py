"""The answer of a database to a query, as a delivery: read only, in a stated order, in chunks, hashed as it comes.

What is hashed is a line of JSON with the names, one for each row, and one with the types: the digest depends on the
answer, not on how a library writes a file. The same cells are kept as Parquet, which the reader of deliveries takes.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from holdfast.artifacts.documents import SourceFile
from holdfast.artifacts.verified import IN_MEMORY, FileContent, VerifiedFile
from holdfast.data.snapshot.delivered import DeliveredFile
from holdfast.errors import InputError, LimitError
from holdfast.wording import printable, without_credentials
from holdfast.workload.schema import DataConfig
from holdfast.workload.statements import check_statement

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

_CHUNK = 10_000
_SECONDS = 3600
_CONNECT_SECONDS = 20
NAME = "query"
Cell = bool | int | float | str | datetime | date | None
_KINDS: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "text", datetime: "moment", date: "day"}
_WIDER = {frozenset({"int", "float"}): "float"}


def take_query(config: DataConfig) -> DeliveredFile:
    """The answer to `data.query` of the database whose URL is in the variable that `data.source` names.

    Raises:
        InputError: no URL, no such database, a query that it refuses, no rows, types that are not read, or rows of
            which `data.key` is not the key.
        LimitError: the answer is larger than `data.max_bytes`.
    """
    url, answer = _url(config.source), _Answer(config.key, config.max_bytes)
    with _errors(config.source), _connected(url) as connection:
        statement = _statement(config, connection)
        rows = connection.execute(statement)
        answer.begin(list(rows.keys()))
        for chunk in rows.partitions(_CHUNK):
            answer.add(chunk)
    pin = SourceFile(path=NAME, sha256=answer.digest(), bytes=answer.bytes, read_as="the answer to a query")
    pin = pin.model_copy(update={"address": config.source})
    return DeliveredFile(NAME, answer.parquet(), "parquet", pin)


def _url(source: str) -> "URL":
    name = source.removeprefix("env:")
    text = os.environ.get(name)
    if not text:
        raise InputError(f"{source}: expected the URL of a database in the variable {name}, found none")
    try:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError
    except ModuleNotFoundError as error:
        raise InputError(
            f"{source}: expected the extra sources-sql, found no module {error.name}; "
            "pip install 'holdfast[sources-sql]'"
        ) from None
    try:
        url = make_url(text)
    except ArgumentError:
        raise InputError(f"{source}: expected the URL of a database, found another text in the variable") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+pg8000")
    if url.get_backend_name() not in _READ_ONLY:
        raise InputError(f"{source}: expected postgresql or sqlite, found {printable(url.drivername)[:40]!r}")
    return url


@contextmanager
def _connected(url: "URL") -> Iterator["Connection"]:
    """A connection in a transaction that reads one state of the database and cannot write."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    bounded = {"timeout": _CONNECT_SECONDS} if url.drivername == "postgresql+pg8000" else {}
    engine = create_engine(url, poolclass=NullPool, connect_args=bounded, hide_parameters=True)
    with engine.connect() as connection:
        yield _READ_ONLY[url.get_backend_name()](connection)


def _postgresql(connection: "Connection") -> "Connection":
    found = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    found.exec_driver_sql(f"SET LOCAL statement_timeout = '{_SECONDS}s'")
    found.exec_driver_sql("SET LOCAL timezone = 'UTC'")
    return found.execution_options(stream_results=True, max_row_buffer=_CHUNK)


def _sqlite(connection: "Connection") -> "Connection":
    connection.exec_driver_sql("PRAGMA query_only = ON")
    return connection.execution_options(stream_results=True)


_READ_ONLY: dict[str, Callable[["Connection"], "Connection"]] = {"postgresql": _postgresql, "sqlite": _sqlite}


def _statement(config: DataConfig, connection: "Connection") -> Any:
    """The query, in the order of the key where one is named; its colons are not parameters."""
    from sqlalchemy import text

    query = check_statement(str(config.query), ordered=not config.key)
    if config.key:
        quote = connection.dialect.identifier_preparer.quote_identifier
        query = f"SELECT * FROM ({query}\n) AS delivery ORDER BY {', '.join(map(quote, config.key))}"
    return text(query.replace(":", "\\:"))


@contextmanager
def _errors(source: str) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    log = logging.getLogger("sqlalchemy")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)  # it logs what fails while an error is handled, with the statement
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{source}: expected a driver of its database, found no module {error.name}") from None
    except (SQLAlchemyError, OSError) as error:
        raise InputError(f"{source}: expected an answer of the database, found {_reason(error)}") from None
    finally:
        log.setLevel(before)


def _reason(error: Exception) -> str:
    """What the database said, without the statement, the URL, and what a library adds."""
    own = getattr(error, "orig", None) or error
    first = own.args[0] if own.args else type(own).__name__
    said = first.get("M", "an error") if isinstance(first, dict) else first
    return without_credentials(printable(" ".join(str(said).split())))[:200]


@dataclass
class _Answer:
    """The rows as they come: their digest, and their cells by column."""

    key: Sequence[str]
    most: int
    names: list[str] = field(default_factory=list)
    kinds: list[str | None] = field(default_factory=list)
    bytes: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)
    _chunks: list[list[Any]] = field(default_factory=list)
    _last: tuple[Cell, ...] | None = None

    def begin(self, names: list[str]) -> None:
        missing = [one for one in self.key if one not in names]
        if missing:
            raise InputError(f"data.key: expected columns of the answer, found {printable(missing[0])!r}")
        self.names, self.kinds, self._chunks = names, [None] * len(names), [[] for _ in names]
        self._write(list(names))

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Takes the next rows."""
        cells = [[_cell(value, name) for value, name in zip(row, self.names, strict=True)] for row in rows]
        for row in cells:
            self._check_key(row)
            self._write([one.isoformat() if isinstance(one, date) else one for one in row])
        for index, column in enumerate(zip(*cells, strict=True)):
            self._keep(index, column)

    def digest(self) -> str:
        """SHA-256 of all lines, in hexadecimal."""
        self._write([kind or "missing" for kind in self.kinds])
        return str(self._hash.hexdigest())

    def parquet(self) -> FileContent:
        """The cells as the reader of deliveries takes them.

        Raises:
            InputError: no rows.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._chunks or not self._chunks[0]:
            raise InputError(f"{NAME}: expected rows, found none")
        columns = [self._joined(kind, chunks) for kind, chunks in zip(self.kinds, self._chunks, strict=True)]
        with tempfile.TemporaryFile() as kept:
            pq.write_table(pa.Table.from_arrays(columns, names=self.names), kept, compression="none")
            kept.flush()
            size = kept.tell()
            if size <= IN_MEMORY:
                kept.seek(0)
                return kept.read()
            return VerifiedFile.hashed(kept.fileno(), NAME, most=size)

    def _write(self, line: list[Any]) -> None:
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self.bytes += len(data)
        if self.bytes > self.most:
            raise LimitError(f"{NAME}: expected an answer of at most {self.most} bytes (data.max_bytes), found more")
        self._hash.update(data)

    def _check_key(self, row: Sequence[Cell]) -> None:
        if not self.key:
            return
        found = tuple(row[self.names.index(name)] for name in self.key)
        if None in found or found == self._last:
            what = "a row without one" if None in found else f"two rows with {printable(str(found[0]))[:40]!r}"
            raise InputError(f"data.key: expected another value of {', '.join(self.key)} in each row, found {what}")
        self._last = found

    def _keep(self, index: int, column: Sequence[Cell]) -> None:
        import pyarrow as pa

        for kind in {_KINDS[type(one)] for one in column if one is not None}:
            self.kinds[index] = self._wider(index, kind)
        known = self.kinds[index]
        try:
            self._chunks[index].append(pa.nulls(len(column)) if known is None else pa.array(column, _type(known)))
        except (pa.ArrowException, OverflowError) as error:
            raise InputError(f"column {self.names[index]!r}: expected numbers of 64 bits, found {error}") from None

    def _wider(self, index: int, kind: str) -> str:
        before = self.kinds[index]
        if before is None or before == kind:
            return kind
        both = _WIDER.get(frozenset({before, kind}))
        if both is None:
            name = printable(self.names[index])
            raise InputError(f"column {name!r}: expected cells of one type, found {before} and {kind}")
        return both

    def _joined(self, kind: str | None, chunks: list[Any]) -> Any:
        import pyarrow as pa

        wanted = _type(kind or "text")
        return pa.chunked_array([chunk.cast(wanted) for chunk in chunks], type=wanted)


def _type(kind: str) -> Any:
    import pyarrow as pa

    return {
        "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "text": pa.string(),
        "moment": pa.timestamp("us", tz="UTC"), "day": pa.date32(),
    }[kind]  # fmt: skip


def _cell(value: Any, name: str) -> Cell:
    """A cell as one of few types; a moment without a zone is UTC."""
    if value is None or type(value) in (bool, int, float, str):
        return None if value != value else value  # NaN is missing, as in files
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return value
    if isinstance(value, Decimal):
        return float(value) if value.is_finite() else None
    if isinstance(value, UUID):
        return str(value)
    raise InputError(
        f"column {printable(name)!r}: expected numbers, bools, texts or dates, found {type(value).__name__}; "
        "cast it in the query"
    )
