"""A client of MLflow that answers, or fails within a bounded time with one line."""

import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_SECONDS = 300.0
"""How long one process waits for another that makes a SQLite store, or registers in it."""
_LOCK_PAUSE = 0.05
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
# MLflow's own defaults wait for more than ten minutes for a server that does not answer.
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


def library() -> None:
    """Imports what a client of MLflow with a database of its own needs; takes seconds."""
    with quiet():
        import mlflow.entities
        import mlflow.pyfunc
        import mlflow.store.model_registry.sqlalchemy_store
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def require_library(tracking: str) -> None:
    """Nothing, where MLflow is installed, or where there is no registry to ask.

    Raises:
        ModuleNotFoundError: it is not; from here, and not from the process that would ask.
    """
    if exists(tracking) and find_spec("mlflow") is None:
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")


def set_up(tracking: str) -> None:
    """Makes the SQLite database where there is none; elsewhere, asks whether MLflow answers."""
    path = sqlite_file(tracking)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    with connected(tracking):
        pass


def sqlite_file(tracking: str) -> Path | None:
    """The database file of a `sqlite:///` URI."""
    prefix = "sqlite:///"
    return Path(tracking.removeprefix(prefix).partition("?")[0]) if tracking.startswith(prefix) else None


def exists(tracking: str) -> bool:
    """False for a SQLite file that is not there yet: asking MLflow would make it, which takes seconds."""
    path = sqlite_file(tracking)
    return path is None or (path.is_file() and path.stat().st_size > 0)


@contextmanager
def connected(tracking: str) -> "Iterator[MlflowClient]":
    """A client that answered once; what goes wrong inside becomes one line within a bounded time."""
    _check_sqlite(tracking)
    path = sqlite_file(tracking)
    with quiet():
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with _process_wide(mlflow, tracking):
                # MLflow makes the tables of a new database at the first call: only one process may.
                with _environment(_FIRST_CALL), nullcontext() if path is None else locked(path.parent):
                    client = _answering(mlflow, tracking)
                with _environment(_LATER_CALLS):
                    yield client
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise RegistryError(f"{public(tracking)}: expected MLflow to answer, found: {_line(error)}") from None


def _answering(mlflow: Any, tracking: str) -> "MlflowClient":
    """A client that answered once; both halves of a database that was not there are made."""
    is_new = not exists(tracking)
    client = mlflow.MlflowClient(tracking, tracking)
    client.search_registered_models(max_results=1)
    if is_new:
        client.search_experiments(max_results=1)
    return client


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes that lock the same folder out; the kernel ends the lock with the process.

    Raises:
        RegistryError: another one has had it for longer than making or filling a store takes.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while not _take(handle):
            if time.monotonic() > deadline:
                raise RegistryError(
                    f"{folder}: expected to have the store to itself within {LOCK_SECONDS:g} s, found another process "
                    "that makes or fills it; try again when that one has ended"
                )
            time.sleep(_LOCK_PAUSE)
        yield
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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


def or_none(ask: Callable[[], Any]) -> Any:
    """The answer of MLflow; None when there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def public(tracking: str) -> str:
    """The URI without user and password."""
    return re.sub(r"://[^/@]*@", "://", tracking)


@contextmanager
def _process_wide(mlflow: Any, tracking: str) -> Iterator[None]:
    # The client resolves `models:/` sources through the process-wide URI, not the one it was made with.
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


def _check_sqlite(tracking: str) -> None:
    """Finds at once what SQLAlchemy would find after ten attempts with growing pauses."""
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


def _line(error: BaseException) -> str:
    """One line for a person: of a failed request its cause alone, which comes last."""
    text = " ".join(str(error).split())
    cause = re.search(r"\(Caused by \w+\((.*)\)\)$", text)
    text = re.sub(r"^['\"]|['\"]$", "", cause[1].rpartition("): ")[2] or cause[1]) if cause else text
    return public(text[:200] + ("…" if len(text) > 200 else ""))
