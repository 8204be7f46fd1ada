"""What the tests and the benchmark of the containers share: an MLflow server, pipelines that pull the images, a run."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast import containers
from holdfast.errors import RunError
from holdfast.resources import workloads
from holdfast.steps import STEPS
from holdfast_pipelines import parameters as given
from holdfast_pipelines.cluster import ClusterSettings
from holdfast_pipelines.compiled import compile_pipelines
from tests.images import engine
from tests.images.driver import StandInCluster, Task, run_pipeline

ROOT = Path(__file__).parents[2]
DIGITS = next(path for path in workloads() if path.stem == "digits")
RETRAIN = tuple(step for step in STEPS if step.pipeline == "retrain")
PYTHONS = {"data": ROOT / ".venv-data" / "bin" / "python", "model": Path(sys.executable)}
"""The interpreters of the same locks on this machine."""
OWN_EACH_TIME = ("register",)
"""Its artifact names MLflow's run, which has another id each time."""
START_SECONDS = 120
SIGNING = {
    "keys": {role: f"key-{role}" for role in ("data-owner", "trainer", "attacker", "gate")},
    "statements": "statements",
    "trust": "trust",
}
"""`signing` of a cluster's settings; `secrets_of` makes the secrets."""


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Inside, a real MLflow server that stores artifacts for its clients; its address.

    Raises:
        RunError: it does not answer.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    host, _, port = address.partition(":")
    stores = [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/artifacts"]
    words = [sys.executable, "-m", "mlflow", "server", *stores, f"--host={host}", f"--port={port}", "--workers=1"]
    with (folder / "server.txt").open("wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        _wait(f"http://{address}/health", server)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(30)


def _wait(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise RunError(f"{url}: expected an answer within {START_SECONDS} s, found none")


def compile_for_containers(folder: Path, **settings: object) -> None:
    """Compiles the pipelines with `settings` of a cluster so that they take the images of this machine."""
    images = {name: engine.image(name) for name in containers.ENVIRONMENTS}
    compile_pipelines(folder, ClusterSettings.model_validate({"images": images, **settings}))


def secrets_of(keys: Path) -> dict[str, dict[str, str]]:
    """The secrets that SIGNING names, of a folder with a key of every role and `trust.yaml`."""
    private = {f"key-{path.stem}": {"key.pem": path.read_text()} for path in keys.glob("*.pem")}
    return {**private, "trust": {path.name: path.read_text() for path in keys.iterdir() if path.suffix != ".pem"}}


def retrain(compiled: Path, tracking: str, cluster: StandInCluster) -> dict[str, Task]:
    """Runs the retraining of the digits in containers."""
    values = given.retrain_parameters(given.read(DIGITS), DIGITS.parent, given.Settings(tracking=tracking))
    return run_pipeline(compiled / "retrain.yaml", values, cluster)


def roll_out(compiled: Path, tracking: str, cluster: StandInCluster) -> Task:
    """Rolls out version 1 in a container."""
    values = given.rollout_parameters(given.read(DIGITS), 1, given.Settings(tracking=tracking))
    return run_pipeline(compiled / "rollout.yaml", values, cluster)["rollout"]
