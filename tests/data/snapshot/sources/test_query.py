"""Against a real PostgreSQL that the test starts in a folder of its own, as a user without rights, and SQLite."""

import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError, IntegrityError, LimitError
from holdfast.workload.schema import DataConfig

sqlalchemy = pytest.importorskip("sqlalchemy", reason="the extra sources-sql is not installed")
Take = Callable[..., Artifact[Snapshot]]
SOURCE, URL = "env:ORDERS_DATABASE_URL", "ORDERS_DATABASE_URL"
QUERY = "SELECT id, age, city, label FROM orders"
PLACES = f"{os.environ['PATH']}:" + ":".join(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))))
POSTGRES, INITDB = shutil.which("postgres", path=PLACES), shutil.which("initdb", path=PLACES)


def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL, with a password in it."""
    if POSTGRES is None or INITDB is None:
        pytest.skip("postgres and initdb are not installed")
    nobody = pwd.getpwnam("nobody")
    # PostgreSQL refuses to run as root.
    user: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid} if os.geteuid() == 0 else {}
    folder, port, quiet = Path(tempfile.mkdtemp(prefix="holdfast-")), unused_port(), subprocess.DEVNULL
    if user:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    data, env = folder / "data", {"PATH": PLACES, "LC_ALL": "C"}
    common: dict[str, Any] = {"stdout": quiet, "stderr": quiet, "env": env, "cwd": folder, **user}
    try:
        subprocess.run(
            [INITDB, "-D", data, "-A", "trust", "-U", "ann", "-E", "UTF8", "--no-sync"], check=True, **common
        )
        words = ["-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        child = subprocess.Popen([POSTGRES, *words], **common)
        try:
            _wait_for(port, child)
            yield f"postgresql://ann:hunter2@127.0.0.1:{port}/postgres"
        finally:
            child.terminate()
            child.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, child: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and child.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail("postgres did not start")


def run(server: str, *statements: str) -> None:
    engine = sqlalchemy.create_engine(server.replace("postgresql:", "postgresql+pg8000:"))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sqlalchemy.text(statement.replace(":", "\\:")))
    engine.dispose()


@pytest.fixture
def orders(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A table of 40 rows, some cells of which are NULL."""
    run(
        server,
        "DROP TABLE IF EXISTS orders",
        "CREATE TABLE orders (id int, age numeric(6,2), city text, label text, at timestamptz, raw bytea)",
        "INSERT INTO orders SELECT n, 20 + n, CASE WHEN n % 2 = 0 THEN 'Ulm' ELSE 'Bonn' END, "
        "CASE WHEN n % 4 = 0 THEN 'no' ELSE 'yes' END, timestamptz '2026-11-27 01:00:00+01' + n * interval '1 day', "
        "'x' FROM generate_series(0, 39) AS n",
    )
    monkeypatch.setenv(URL, server)
    return server


def ask(take: Take, query: str = QUERY, **data: Any) -> Artifact[Snapshot]:
    section = {"key": ("id",), "drop": ("id",), **data}
    return take(SOURCE, query=query, **section)


def test_the_answer_is_a_delivery_with_the_types_of_the_database(orders: str, take: Take) -> None:
    document = ask(take, "SELECT id, age, city, at, label FROM orders").document
    kinds = {one.name: one.kind for one in document.columns}
    assert kinds == {"age": "number", "city": "category", "at": "number"}
    assert (document.train_rows + document.test_rows, document.classes) == (40, ("no", "yes"))
    source = document.sources[0]
    assert (source.path, source.address, source.read_as) == ("query", SOURCE, "the answer to a query")


def test_the_rows_are_those_of_the_same_table_in_a_file(orders: str, take: Take, tmp_path: Path) -> None:
    rows = range(40)
    table = {
        "id": pa.array(rows, pa.int64()), "age": pa.array([20.0 + n for n in rows]),
        "city": ["Bonn" if n % 2 else "Ulm" for n in rows], "label": ["yes" if n % 4 else "no" for n in rows],
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "orders.parquet")
    assert ask(take).document.files == take(tmp_path / "orders.parquet", drop=("id",)).document.files


def test_new_rows_are_seen_and_the_same_rows_in_another_place_are_the_same_delivery(orders: str, take: Take) -> None:
    first = ask(take)
    run(orders, "UPDATE orders SET city = city WHERE id < 20")
    assert ask(take).digest == first.digest
    run(orders, "INSERT INTO orders VALUES (40, 99, 'Ulm', 'yes')")
    assert ask(take).document.train_rows + ask(take).document.test_rows == 41


def test_an_answer_can_be_pinned(orders: str, take: Take) -> None:
    pin = ask(take).document.sources[0].sha256
    assert ask(take, sha256=pin).document.sources[0].sha256 == pin
    run(orders, "UPDATE orders SET age = age + 1 WHERE id = 3")
    with pytest.raises(IntegrityError, match=r"env:ORDERS_DATABASE_URL: expected sha256 .* \(data\.sha256\), found"):
        ask(take, sha256=pin)


def test_a_null_stays_missing(orders: str, take: Take) -> None:
    run(orders, "UPDATE orders SET age = NULL, city = NULL WHERE id IN (3, 5)")
    with pytest.raises(InputError, match=r"'age'.*2 of 40 rows"):
        ask(take)
    names = [one.name for one in ask(take, missing="indicator").document.columns]
    assert len(names) == 4


def test_a_query_cannot_write(orders: str, take: Take) -> None:
    run(orders, "CREATE OR REPLACE FUNCTION spoil() RETURNS int LANGUAGE sql AS 'DELETE FROM orders RETURNING 1'")
    for query in (
        "WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone ORDER BY id",
        "SELECT spoil() ORDER BY 1",
    ):
        with pytest.raises(InputError, match="read-only transaction|data-modifying"):
            ask(take, query, key=())
    assert ask(take).document.train_rows == 32


def test_two_rows_of_one_key_would_have_no_order(orders: str, take: Take) -> None:
    with pytest.raises(
        InputError, match=r"data\.key: expected another value of city in each row, found two rows with 'Bonn'"
    ):
        ask(take, key=("city",))
    with pytest.raises(InputError, match=r"data\.key: expected columns of the answer, found 'number'|number"):
        ask(take, key=("number",))


def test_an_answer_larger_than_allowed_is_not_kept(orders: str, take: Take) -> None:
    with pytest.raises(LimitError, match=r"query: expected an answer of at most 100 bytes \(data\.max_bytes\)"):
        ask(take, max_bytes=100)


def test_rows_come_in_chunks(orders: str, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ask(take)
    monkeypatch.setattr("holdfast.data.snapshot.sources.query._CHUNK", 7)
    assert ask(take).digest == whole.digest


def test_what_no_delivery_holds_is_refused_by_its_column(orders: str, take: Take) -> None:
    with pytest.raises(InputError, match="column 'raw': expected numbers, bools, texts or dates, found bytes"):
        ask(take, "SELECT id, raw, label FROM orders")


def test_percent_signs_colons_and_comments_are_the_query_s_own(orders: str, take: Take) -> None:
    query = "SELECT id, age::float8 AS age, city, label FROM orders WHERE city NOT LIKE 'X:%' -- of today: all"
    assert ask(take, query).document.train_rows == 32


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "expected the URL of a database in the variable ORDERS_DATABASE_URL, found none"),
        ("hunter2", "expected the URL of a database, found another text in the variable"),
        ("mysql://ann:hunter2@db/x", "expected postgresql or sqlite, found 'mysql'"),
        ("postgresql://ann:hunter2@127.0.0.1:9/x", "expected an answer of the database, found"),
    ],
)
def test_a_database_that_cannot_be_asked_is_one_line_without_the_password(
    take: Take, monkeypatch: pytest.MonkeyPatch, url: str | None, message: str
) -> None:
    monkeypatch.delenv(URL, raising=False)
    if url is not None:
        monkeypatch.setenv(URL, url)
    with pytest.raises(InputError, match=message) as raised:
        ask(take)
    assert "hunter2" not in str(raised.value)


def test_a_refusal_of_the_database_shows_neither_password_nor_statement(orders: str, take: Take) -> None:
    with pytest.raises(InputError, match='found relation "elsewhere" does not exist') as raised:
        ask(take, "SELECT id, 'secret' AS x FROM elsewhere")
    assert "hunter2" not in str(raised.value)
    assert "secret" not in str(raised.value)


# --- without a server -------------------------------------------------------------------------------------------------


def test_a_file_of_sqlite_is_read_and_never_written(
    take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "orders.db"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE orders (id INTEGER, age REAL, label TEXT)")
        made.executemany("INSERT INTO orders VALUES (?, ?, ?)", [(n, 20.5 + n, "ny"[n % 2]) for n in range(20)])
    made.close()
    monkeypatch.setenv(URL, f"sqlite:///{path}")
    assert ask(take, "SELECT id, age, label FROM orders").document.train_rows == 16
    with pytest.raises(InputError, match="expected an answer of the database"):
        ask(take, "WITH x AS (SELECT 1) DELETE FROM orders RETURNING id ORDER BY id", key=())


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"query": "DELETE FROM orders", "key": ["id"]}, "begins with SELECT or WITH"),
        ({"query": "SELECT 1; DROP TABLE orders", "key": ["id"]}, "found another after a semicolon"),
        ({"query": QUERY}, r"expected an ORDER BY, or data\.key"),
        ({"query": f"SELECT * FROM ({QUERY} ORDER BY id) AS x"}, r"expected an ORDER BY, or data\.key"),
        ({"query": f"{QUERY} -- ORDER BY id"}, r"expected an ORDER BY, or data\.key"),
        ({"query": f"{QUERY} WHERE city = 'order by'"}, r"expected an ORDER BY, or data\.key"),
        ({"query": f"{QUERY} ORDER BY id", "source": "orders.csv"}, "expected query .* with a source env:NAME"),
        ({"source": SOURCE}, "expected query .* with a source env:NAME"),
        ({"query": QUERY, "source": "env:NO-NAME", "key": ["id"]}, "the name of an environment variable"),
        ({"query": f"{QUERY} ORDER BY id", "test": "x.csv"}, "expected neither test nor newest with it"),
    ],
)
def test_a_query_that_cannot_be_a_delivery_is_refused_in_the_file(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate({"source": SOURCE, **section})


@pytest.mark.parametrize(
    "query",
    [f"{QUERY} ORDER BY id;", f"{QUERY}\nOrder  By id", "WITH x AS (SELECT ';' AS a) SELECT a FROM x ORDER BY a"],
)
def test_one_statement_with_an_order_is_taken(query: str) -> None:
    assert DataConfig(source=SOURCE, query=query).query == query
