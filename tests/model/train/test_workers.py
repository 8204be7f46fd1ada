"""Several processes on one machine: real ones, with real gradients between them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from holdfast.artifacts.documents import Model, Snapshot, ThreatModel
from holdfast.artifacts.folder import Artifact, Ref, load
from holdfast.compute import Compute
from holdfast.errors import ModelError, WorkloadError
from holdfast.model.networks import load_network
from holdfast.model.train import workers
from holdfast.model.train.step import train
from holdfast.model.train.workers import TrainInputs, train_together, words
from holdfast.workload.schema import NetworkConfig, RecipeConfig, TrainConfig

SETTINGS = Compute(0, "cpu", 1)


def config(count: int, **recipe: object) -> TrainConfig:
    given = {"recipe": "standard", "epochs": 2, "learning_rate": 0.01, "batch": 64, "workers": count, **recipe}
    return TrainConfig(
        name="digits",
        network=NetworkConfig(architecture="cnn", arguments={"width": 4}),
        threat=ThreatModel(norm="linf", epsilon="1/10", unit="input units [0, 1]"),
        train=RecipeConfig.model_validate(given),
    )


def test_the_words_lead_to_the_same_training(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    given = words(
        TrainInputs(Ref(digits.folder, digits.digest)),
        tmp_path / "model",
        config=config(2),
        settings=SETTINGS,
        checkpoint=tmp_path / "checkpoint",
    )
    assert f"--snapshot={digits.folder}@{digits.digest}" in given
    assert f"--checkpoint={tmp_path / 'checkpoint'}" in given
    assert not [word for word in given if word.startswith(("--scan", "--baseline"))]
    (text,) = [word.removeprefix("--config=") for word in given if word.startswith("--config=")]
    assert TrainConfig.model_validate_json(text) == config(2)


@pytest.mark.parametrize(("count", "found"), [(2, "4"), (1, "2"), (2, "many")])
def test_a_worker_among_more_or_fewer_than_asked_for_is_refused(
    digits: Artifact[Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, found: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", found)
    with pytest.raises(WorkloadError, match=f"train.workers {count}: expected as many processes, found WORLD_SIZE"):
        train(Ref(digits.folder), tmp_path / "m", scan=None, config=config(count), settings=SETTINGS, checkpoint=None)


def test_a_worker_that_fails_ends_the_others_with_its_reason(tmp_path: Path) -> None:
    given = words(
        TrainInputs(Ref(tmp_path / "none")), tmp_path / "m", config=config(2), settings=SETTINGS, checkpoint=None
    )
    with pytest.raises(ModelError, match="process . of 2 failed with exit code 1"):
        train_together(given, 2)


def test_art_trains_in_one_process() -> None:
    with pytest.raises(ValueError, match="engine art has no class_weights or workers"):
        config(2, engine="art", recipe="pgd")


@pytest.mark.nightly
def test_two_processes_train_what_one_does_and_twice_the_same(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    made = [
        train(Ref(digits.folder), tmp_path / name, scan=None, config=config(n), settings=SETTINGS, checkpoint=None)
        for name, n in (("one", 1), ("two", 2), ("again", 2))
    ]
    assert made[1].digest == made[2].digest
    one, two = (load_network(model, "cpu").state_dict() for model in made[:2])
    # Nothing is drawn here, and a mean of two halves is that of the whole, but for rounding.
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


def command(given: list[str]) -> "subprocess.Popen[str]":
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-m", "holdfast", "train", *given]
    return subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)


def worker(parent: int, rank: int) -> int:
    """The number of the process of that rank."""
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in (task / "children").read_text().split():
            if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
                return int(child)
    raise LookupError(rank)


@pytest.mark.nightly
@pytest.mark.parametrize(("sent", "to_worker", "code", "line"), [
    (signal.SIGKILL, True, 1, "process 2 of 2 was ended by SIGKILL; start it again to go on from the last checkpoint"),
    (signal.SIGTERM, False, 143, "stopped by SIGTERM with all its processes; start it again to go on"),
])  # fmt: skip
def test_a_training_that_lost_a_worker_or_was_stopped_goes_on_from_its_checkpoint(
    digits: Artifact[Snapshot], tmp_path: Path, sent: signal.Signals, to_worker: bool, code: int, line: str
) -> None:
    recipe = config(2, recipe="pgd", epochs=4, attack_steps=4)
    inputs = TrainInputs(Ref(digits.folder, digits.digest))

    def given(name: str) -> list[str]:
        return words(inputs, tmp_path / name, config=recipe, settings=SETTINGS, checkpoint=tmp_path / f"{name}-kept")

    whole = command(given("whole"))
    assert whole.wait(120) == 0
    cut = command(given("cut"))
    deadline = time.monotonic() + 120
    while not list((tmp_path / "cut-kept").glob("*.checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(worker(cut.pid, 1) if to_worker else cut.pid, sent)
    _, said = cut.communicate(timeout=120)
    assert (cut.returncode, line in said) == (code, True), said
    assert not (tmp_path / "cut").exists()
    again = command(given("cut"))
    _, said = again.communicate(timeout=120)
    assert (again.returncode, "train: resumes in epoch" in said) == (0, True), said
    assert load(tmp_path / "cut", Model).digest == load(tmp_path / "whole", Model).digest
    assert not list((tmp_path / "cut-kept").glob("*.checkpoint"))


def test_a_worker_does_not_look_for_what_was_made_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path))
    started: list[dict[str, str]] = []
    monkeypatch.setattr(workers.subprocess, "Popen", lambda *words, env, **more: started.append(env))
    workers._start([], 0, 2, 4000, tmp_path)
    assert "HOLDFAST_CACHE" not in started[0]
    assert (started[0]["WORLD_SIZE"], started[0]["RANK"], started[0]["MASTER_PORT"]) == ("2", "0", "4000")


def test_what_is_asked_of_a_worker_is_asked_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(workers.COUNT, raising=False)
    assert not workers.is_worker()
    monkeypatch.setenv(workers.COUNT, "1")
    assert workers.is_worker()
