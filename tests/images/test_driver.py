"""The driver keeps the rules of Kubeflow's launcher: no engine is needed, the containers are functions."""

import json
from pathlib import Path

import pytest

from holdfast_pipelines.cluster import ClusterSettings
from holdfast_pipelines.compiled import compile_pipelines
from holdfast_pipelines.pod_keys import KEY, STATEMENTS, TRUSTED
from tests.images import driver
from tests.images.driver import StandInCluster, on_this_machine, run_pipeline
from tests.images.engine import ContainerEnd

PIPELINES = Path(__file__).parents[2] / "manifests" / "pipelines"
VALUES = {
    f"{name}_config": "{}" for name in ("snapshot", "schema", "drift", "scan", "train", "backdoor", "attack", "certify")
} | {"name": "digits", "tracking": "http://mlflow", "policy": "{}"}


class Containers:
    """What would be started; a step writes its name as its artifact and digest, and the verdict it is given."""

    def __init__(self, verdicts=None, codes=None):
        self.started, self.verdicts, self.codes = {}, verdicts or {}, codes or {}

    def __call__(self, container):
        step = container.command[3] if container.command[:3] == ["python", "-m", "holdfast"] else "refused"
        self.started.setdefault(step, []).append(container)
        given = dict(word[2:].split("=", 1) for word in container.command if word.startswith("--") and "=" in word)
        code = self.codes.get(step, 0)
        if "digest-file" in given and code == 0:
            self._write(container, step, given)
        return ContainerEnd(code, "words", 1.0, 1.0, 1)

    def _write(self, container, step, given):
        places = {mount.target: mount.source for mount in container.mounts}
        artifact = places["/minio"] / Path(given["out"]).relative_to("/minio")
        (artifact / "empty").mkdir(parents=True)
        (artifact / "document.json").write_text(step)
        (places[driver.OUTPUTS] / Path(given["digest-file"]).name).write_text(f"d-{step}")
        (places[driver.OUTPUTS] / Path(given["verdict-file"]).name).write_text(self.verdicts.get(step, "pass"))


@pytest.fixture
def started(monkeypatch):
    def start(**settings):
        containers = Containers(**settings)
        monkeypatch.setattr(driver, "run", containers)
        return containers

    return start


def retrain(folder):
    return run_pipeline(PIPELINES / "retrain.yaml", VALUES, StandInCluster(folder))


def test_a_retraining_runs_all_steps_once_and_refuses_nothing(started, pods):
    containers = started()
    tasks = retrain(pods)
    assert {name for name, task in tasks.items() if task.state == "failed"} == set()
    assert set(containers.started) == {
        "snapshot", "baseline", "schema", "drift", "scan", "train", "backdoor", "attack", "certify", "gate", "register",
        "report",
    }  # fmt: skip
    assert {len(found) for found in containers.started.values()} == {1}


def test_values_and_artifacts_arrive_as_the_launcher_writes_them(started, pods):
    containers = started()
    retrain(pods)
    (train,) = containers.started["train"]
    assert f"--scan={driver.BUCKET}/inputs/scan/artifact@d-scan" in train.command
    assert {"--seed=0", "--threads=1", "--device=auto"} <= set(train.command)
    assert train.memory == "8000000000"


def test_an_artifact_travels_as_plain_files(started, pods):
    started()
    tasks = retrain(pods)
    kept = tasks["train"].artifacts["artifact"]
    assert [path.name for path in kept.rglob("*")] == ["document.json"]


def test_only_the_steps_that_ask_mlflow_have_a_network(started, pods):
    containers = started()
    retrain(pods)
    online = {name for name, (found,) in containers.started.items() if found.network != "none"}
    assert online == {"baseline", "register"}


def test_a_stopped_delivery_trains_nothing_and_ends_with_the_task_that_refuses(started, pods):
    containers = started(verdicts={"schema": "fail"})
    tasks = retrain(pods)
    assert "train" not in containers.started
    assert "refused" in containers.started
    assert any(task.state == "skipped" for name, task in tasks.items() if name.startswith("condition-"))


def test_a_model_that_does_not_pass_is_not_registered(started, pods):
    containers = started(verdicts={"gate": "fail"})
    retrain(pods)
    assert "register" not in containers.started
    assert "refused" in containers.started


def test_a_step_that_fails_is_tried_again_and_then_fails_the_run(started, pods):
    containers = started(codes={"train": 137})
    tasks = retrain(pods)
    assert (tasks["train"].state, tasks["train"].attempts) == ("failed", 3)
    assert any(task.state == "failed" for name, task in tasks.items() if name.startswith("condition-"))
    assert "gate" not in containers.started


def test_a_step_can_be_done_again_without_its_container(started, pods):
    started()
    again = on_this_machine(retrain(pods / "there")["gate"], pods / "here")
    model = next(word for word in again.command if word.startswith("--model="))
    folder, _, digest = model.removeprefix("--model=").partition("@")
    assert (Path(folder) / "document.json").read_text() == "train"
    assert digest == "d-train"
    assert not [word for word in again.command if "=/minio/" in word or '"/tmp/kfp' in word]


def test_what_a_step_says_in_the_executors_output_counts(started, pods, monkeypatch):
    containers = started()

    def says(container):
        places = {mount.target: mount.source for mount in container.mounts}
        ended = containers(container)
        for file in places[driver.OUTPUTS].iterdir():
            said = {
                "parameterValues": {"digest": "d-said", "verdict": "fail"},
                "artifacts": {"metrics": {"artifacts": [{"name": "m", "uri": "u", "metadata": {"rows": 3}}]}},
            }
            (places[str(Path(driver.EXECUTOR_OUTPUT).parent)] / "output_metadata.json").write_text(json.dumps(said))
            file.unlink()
        return ended

    monkeypatch.setattr(driver, "run", says)
    tasks = retrain(pods)
    assert tasks["snapshot"].parameters == {"digest": "d-said", "verdict": "fail"}
    assert tasks["snapshot"].metadata == {"metrics": {"rows": 3}}


def test_a_pod_gets_the_keys_of_its_role_as_files_and_the_runs_name_in_its_command(started, pods):
    names = {"data-owner": "key-data", "trainer": "key-trainer", "attacker": "key-attacker", "gate": "key-gate"}
    signing = {"keys": names, "statements": "statements", "trust": "trust"}
    compile_pipelines(pods, ClusterSettings.model_validate({"signing": signing}))
    secrets = {name: {"key.pem": name} for name in names.values()} | {"trust": {"trust.yaml": "version: 1"}}
    place = StandInCluster(pods / "run", secrets=secrets, claims={"statements": pods / "statements"})
    containers = started()
    run_pipeline(pods / "retrain.yaml", VALUES, place)
    (train,) = containers.started["train"]
    files = {mount.target: mount.source for mount in train.mounts if mount.readonly}
    assert {target: [path.name for path in source.iterdir()] for target, source in files.items()} == {KEY: ["key.pem"]}
    assert (files[KEY] / "key.pem").read_text() == "key-trainer"
    assert f"--attestations={STATEMENTS}/{driver.RUN_ID}" in train.command
    (gate,) = containers.started["gate"]
    assert {mount.target for mount in gate.mounts if mount.readonly} == {KEY, TRUSTED}
