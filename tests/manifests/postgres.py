"""A real PostgreSQL of this machine's package, with one empty database."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def postgres_at(folder: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """The address of the database `mlflow` on `host`; who can reach it gets in. Skips where there is no PostgreSQL."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or shutil.which("runuser") is None:
        pytest.skip("needs PostgreSQL (package postgresql) and its user")
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = str(probe.getsockname()[1])
    for path in (folder, *folder.parents[:3]):
        path.chmod(path.stat().st_mode | 0o011)
    shutil.chown(folder, "postgres")
    as_postgres = ["runuser", "-u", "postgres", "--"]
    subprocess.run([*as_postgres, programs[-1] / "initdb", "-D", folder / "data", "-A", "trust"], check=True, cwd="/")
    with (folder / "data" / "pg_hba.conf").open("a") as rules:
        rules.write("host all all samenet trust\n")
    words = ["-D", folder / "data", "-p", port, "-k", folder, "-c", "fsync=off", "-h", host]
    with subprocess.Popen([*as_postgres, programs[-1] / "postgres", *words], cwd="/") as server:
        try:
            create = [*as_postgres, programs[-1] / "createdb", "-h", host, "-p", port, "mlflow"]
            deadline = time.monotonic() + 30
            while subprocess.run(create, check=False, cwd="/", capture_output=True).returncode:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield f"postgresql://postgres@{host}:{port}/mlflow"
        finally:
            server.terminate()
            server.wait(30)
