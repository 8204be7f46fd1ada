"""kfp's own DockerRunner, with nothing of it replaced, runs the compiled pipelines as they are committed.

The daemon is a stand-in here, and so is what it is asked to run.
"""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("docker", reason="DockerRunner needs the client of Docker")

import docker
from kfp import local
from kfp.components import load_component_from_file
from kfp.local.config import LocalExecutionConfig

from holdfast import containers
from holdfast.steps import STEPS, names
from holdfast_pipelines.parameters import Settings, read, retrain_parameters

PIPELINES = Path(__file__).parents[2] / "manifests" / "pipelines"
STAND_IN = Path(__file__).with_name("stand_in.py")
pytestmark = pytest.mark.filterwarnings("ignore:Task .* have no effect in the current local runner")
WORKLOAD = """
name: toy
modality: image
data: {source: 'sklearn:digits'}
network: {architecture: cnn}
threat: {norm: linf, epsilon: 8/255}
"""


class Daemon:
    """Runs what a container is to run, and keeps what it was asked."""

    def __init__(self):
        tags = [containers.image(name) for name in containers.ENVIRONMENTS]
        self.images = SimpleNamespace(list=lambda: [SimpleNamespace(tags=tags, attrs={"RepoDigests": []})])
        self.containers = SimpleNamespace(run=self.run)
        self.asked = []

    def info(self):
        return {}

    def close(self):
        pass

    def run(self, image, command, **options):
        self.asked.append((image, command, options["volumes"]))
        code = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(STAND_IN), *command[1:]])
            try:
                runpy.run_path(str(STAND_IN), run_name="__main__")
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        return SimpleNamespace(logs=lambda stream: [b"a line\n"], wait=lambda: {"StatusCode": code})


@pytest.fixture
def daemon(monkeypatch):
    found = Daemon()
    monkeypatch.setattr(docker, "from_env", lambda: found)
    monkeypatch.setattr(LocalExecutionConfig, "instance", None)
    return found


@pytest.fixture
def retrain(tmp_path, monkeypatch, daemon):
    """Runs the committed pipeline; gives the words of each step in the order in which they ran."""
    monkeypatch.setenv("STAND_IN_DIARY", str(tmp_path / "diary"))
    (tmp_path / "toy.yaml").write_text(WORKLOAD)

    def run(**says):
        monkeypatch.setenv("STAND_IN", json.dumps(says))
        local.init(local.DockerRunner(), pipeline_root=str(tmp_path / "root"), raise_on_error=True)
        pipeline = load_component_from_file(str(PIPELINES / "retrain.yaml"))
        parameters = retrain_parameters(read(tmp_path / "toy.yaml"), tmp_path, Settings(tracking="sqlite:///x.db"))
        try:
            pipeline(**parameters)
        finally:
            lines = (tmp_path / "diary").read_text().splitlines()
            steps.extend(json.loads(line) for line in lines)

    steps = []
    run.steps = steps
    return run


def done(run):
    return [step["step"] for step in run.steps]


def test_a_model_that_passes_is_registered_and_the_report_has_every_artifact(retrain, daemon):
    retrain()
    before_rollout = [name for name in names() if name != "rollout"]
    assert sorted(done(retrain)) == sorted([*before_rollout, "report"])
    assert done(retrain).index("gate") < done(retrain).index("register") < done(retrain).index("report")
    assert len(retrain.steps[-1]["artifacts"]) == len(before_rollout)
    assert Path(retrain.steps[-1]["out"]).read_text() == "<p>report</p>"
    images = {command[3]: image for image, command, _ in daemon.asked}
    assert all(images[step.name] == containers.image(step.environment) for step in STEPS if step.name in images)


def test_a_model_that_fails_is_not_registered_and_the_run_fails_after_its_report(retrain):
    with pytest.raises(RuntimeError, match=r"finished with status .*FAILURE"):
        retrain(gate={"verdict": "fail"})
    assert "register" not in done(retrain)
    assert done(retrain)[-2:] == ["gate", "report"]


@pytest.mark.parametrize("check", ["schema", "drift"])
def test_a_delivery_that_is_stopped_is_reported_and_nothing_is_trained(retrain, check):
    with pytest.raises(RuntimeError, match=r"finished with status .*FAILURE"):
        retrain(**{check: {"verdict": "fail"}})
    assert sorted(done(retrain)) == ["baseline", "drift", "report", "schema", "snapshot"]
    assert done(retrain)[-1] == "report"


def test_a_step_that_fails_fails_the_run(retrain):
    with pytest.raises(RuntimeError, match=r"finished with status .*FAILURE"):
        retrain(scan={"exit": 7})
    assert done(retrain)[-1] == "scan"
