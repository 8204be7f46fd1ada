"""The compiled pipelines in containers, against a real MLflow server, and every step's digest without them."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast import registry
from holdfast.attestation.demands import Demands
from holdfast.attestation.trust import read_trust
from tests.attestation.chains import make_keys
from tests.images.driver import StandInCluster, Task, on_this_machine
from tests.images.scene import (
    OWN_EACH_TIME,
    PYTHONS,
    RETRAIN,
    SIGNING,
    compile_for_containers,
    mlflow_server,
    retrain,
    roll_out,
    secrets_of,
)

pytestmark = [pytest.mark.usefixtures("images"), pytest.mark.nightly]


@dataclass(frozen=True)
class Retrained:
    compiled: Path
    tracking: str
    tasks: dict[str, Task]


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory, images: None) -> Iterator[Retrained]:
    compiled = tmp_path_factory.mktemp("compiled")
    compile_for_containers(compiled)
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as tracking:
        tasks = retrain(compiled, tracking, StandInCluster(tmp_path_factory.mktemp("cluster")))
        yield Retrained(compiled, tracking, tasks)


def test_every_step_of_a_retraining_ends_well_in_its_container(retrained):
    steps = {step.name for step in RETRAIN}
    done = {name: task.state for name, task in retrained.tasks.items() if name in steps}
    logs = [task.ended.log[-2000:] for task in retrained.tasks.values() if task.state == "failed" and task.ended]
    assert done == dict.fromkeys(steps, "succeeded"), logs
    assert retrained.tasks["gate"].parameters["verdict"] == "pass"
    assert retrained.tasks["attack"].metadata["metrics"]
    assert retrained.tasks["report-registered"].artifacts["page"].read_text().startswith("<!")


@pytest.mark.parametrize("step", [step for step in RETRAIN if step.name not in OWN_EACH_TIME], ids=lambda s: s.name)
def test_a_step_has_the_same_digest_without_its_container(retrained, step, tmp_path):
    python = PYTHONS[step.environment]
    if not python.exists():
        pytest.skip(f"{python} is not here")
    task = retrained.tasks[step.name]
    again = on_this_machine(task, tmp_path)
    subprocess.run([python, *again.command[1:]], check=True, cwd=tmp_path, capture_output=True)
    assert again.output("digest") == task.parameters["digest"]


def test_shards_in_pods_of_their_own_give_the_same_evidence(retrained, tmp_path):
    compile_for_containers(tmp_path / "compiled", shards={"attack": 2, "certify": 2})
    tasks = retrain(tmp_path / "compiled", retrained.tracking, StandInCluster(tmp_path))
    assert {tasks[name].state for name in ("attack-part", "attack-part-2", "certify-part-2")} == {"succeeded"}
    for step in ("attack", "certify", "gate"):
        assert tasks[step].parameters["digest"] == retrained.tasks[step].parameters["digest"]


def test_what_was_registered_is_rolled_out_in_a_container(retrained, tmp_path):
    task = roll_out(retrained.compiled, retrained.tracking, StandInCluster(tmp_path))
    assert task.state == "succeeded", task.ended
    assert task.parameters["verdict"] == "pass"


def test_a_retraining_signed_by_the_keys_of_its_pods_is_all_that_a_reader_demands(images, tmp_path):
    compiled, keys = tmp_path / "compiled", tmp_path / "keys"
    for folder in (compiled, tmp_path / "mlflow", tmp_path / "statements"):
        folder.mkdir()
    (tmp_path / "statements").chmod(0o777)
    make_keys(keys)
    compile_for_containers(compiled, signing=SIGNING)
    place = StandInCluster(tmp_path / "run", secrets=secrets_of(keys), claims={"statements": tmp_path / "statements"})
    with mlflow_server(tmp_path / "mlflow") as tracking:
        tasks = retrain(compiled, tracking, place)
        assert tasks["register"].state == "succeeded", tasks["register"].ended or tasks["gate"].ended
        demands = Demands(read_trust(keys / "trust.yaml"))
        found = registry.fetch(tracking, "digits", 1, tmp_path / "bundle", demands)
    assert found.model.digest == tasks["train"].parameters["digest"]
