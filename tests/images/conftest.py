import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images import engine


@pytest.fixture(scope="session")
def images() -> None:
    """Skips, with the reason, where no container can be run."""
    if reason := engine.missing():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server that stores artifacts for its clients."""
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [
        "server",
        f"--backend-store-uri=sqlite:///{folder}/mlflow.db",
        f"--artifacts-destination={folder}/artifacts",
    ]
    words += ["--host=127.0.0.1", f"--port={port}", "--workers=1"]
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "mlflow", *words], stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def _wait(url: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert server.poll() is None, "the MLflow server ended"
        try:
            urllib.request.urlopen(url, timeout=5)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"{url}: expected an answer within two minutes, found none")


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Path]:
    """A folder whose contents may belong to the user of the pods."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)
