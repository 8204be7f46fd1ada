"""The compiled pipelines in containers, against a real MLflow server, and every step's digest without them."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast import containers
from holdfast.resources import workloads
from holdfast.steps import STEPS
from holdfast_pipelines import parameters as given
from holdfast_pipelines.cluster import ClusterSettings
from holdfast_pipelines.compiled import compile_pipelines
from tests.images import engine
from tests.images.driver import StandInCluster, Task, on_this_machine, run_pipeline

pytestmark = [pytest.mark.usefixtures("images"), pytest.mark.nightly]
ROOT = Path(__file__).parents[2]
DIGITS = next(path for path in workloads() if path.stem == "digits")
PYTHONS = {"data": ROOT / ".venv-data" / "bin" / "python", "model": Path(sys.executable)}
RETRAIN = [step for step in STEPS if step.pipeline == "retrain"]
RANDOM = ("register",)
"""Its artifact names MLflow's run, which has another id each time."""


@dataclass(frozen=True)
class Retrained:
    compiled: Path
    tracking: str
    tasks: dict[str, Task]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = {name: engine.image(name) for name in containers.ENVIRONMENTS}
    folder = tmp_path_factory.mktemp("compiled")
    compile_pipelines(folder, ClusterSettings.model_validate({"images": names}))
    return folder


@pytest.fixture(scope="module")
def retrained(tmp_path_factory, mlflow, compiled) -> Retrained:
    values = given.retrain_parameters(given.read(DIGITS), DIGITS.parent, given.Settings(tracking=mlflow))
    cluster = StandInCluster(tmp_path_factory.mktemp("cluster"))
    return Retrained(compiled, mlflow, run_pipeline(compiled / "retrain.yaml", values, cluster))


def test_every_step_of_a_retraining_ends_well_in_its_container(retrained):
    steps = {step.name for step in RETRAIN}
    done = {name: task.state for name, task in retrained.tasks.items() if name in steps}
    logs = [task.ended.log[-2000:] for task in retrained.tasks.values() if task.state == "failed" and task.ended]
    assert done == dict.fromkeys(steps, "succeeded"), logs
    assert retrained.tasks["gate"].parameters["verdict"] == "pass"


@pytest.mark.parametrize("step", [step.name for step in RETRAIN if step.name not in RANDOM])
def test_a_step_has_the_same_digest_without_its_container(retrained, step, tmp_path):
    task = retrained.tasks[step]
    again = on_this_machine(task, tmp_path)
    environment = next(found.environment for found in RETRAIN if found.name == step)
    python = PYTHONS[environment]
    if not python.exists():
        pytest.skip(f"{python} is not here")
    subprocess.run([python, *again.command[1:]], check=True, cwd=tmp_path, capture_output=True)
    assert again.output("digest") == task.parameters["digest"]


def test_what_was_registered_is_rolled_out_in_a_container(retrained, tmp_path):
    values = given.rollout_parameters(given.read(DIGITS), 1, given.Settings(tracking=retrained.tracking))
    tasks = run_pipeline(retrained.compiled / "rollout.yaml", values, StandInCluster(tmp_path))
    assert tasks["rollout"].state == "succeeded", tasks["rollout"].ended
    assert tasks["rollout"].parameters["verdict"] == "pass"
