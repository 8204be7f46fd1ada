"""Fine-tuning: the champion's weights are the start, and without the same network there is none."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load as read_tensors

from holdfast.artifacts.documents import Baseline, Model, Snapshot, ThreatModel
from holdfast.artifacts.folder import Artifact, Ref, save, seal, write_artifact
from holdfast.compute import Compute
from holdfast.errors import InputError, IntegrityError
from holdfast.model.train.step import train
from holdfast.workload.schema import NetworkConfig, RecipeConfig, TrainConfig

SETTINGS = Compute(seed=1, device="cpu", threads=1)


def config(recipe: str, epochs: int, width: int = 16, rate: float = 5e-3) -> TrainConfig:
    return TrainConfig(
        name="small",
        network=NetworkConfig(architecture="cnn", arguments={"width": width}),
        threat=ThreatModel(norm="linf", epsilon="1/10", unit="input"),
        train=RecipeConfig(recipe=recipe, epochs=epochs, batch=64, attack_steps=2, learning_rate=rate),
    )


def fitted(data: Artifact[Snapshot], out: Path, section: TrainConfig, baseline: Path | None = None) -> Artifact[Model]:
    given = None if baseline is None else Ref(baseline)
    place = Ref(data.folder, data.digest)
    return train(place, out, scan=None, config=section, settings=SETTINGS, checkpoint=None, baseline=given)


def weights(model: Artifact[Model]):
    return read_tensors(model.open("weights.safetensors").getvalue())


@pytest.fixture(scope="module")
def champion(digits: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline that holds a model of eight epochs."""
    folder = tmp_path_factory.mktemp("champion")
    model = fitted(digits, folder / "model", config("pgd", 8))
    with write_artifact(folder / "baseline") as work:
        shutil.copytree(model.folder, work / "model")
        seal(work, Baseline(name="small", present=True, model_version=1, model=model.digest))
    return folder / "baseline"


def test_a_training_starts_from_the_champions_weights(digits, champion, tmp_path) -> None:
    # With hardly any learning rate the weights stay where they began.
    made = fitted(digits, tmp_path / "tuned", config("finetune", 1, rate=1e-9), champion)
    before = read_tensors((champion / "model" / "weights.safetensors").read_bytes())
    assert max(float((value - before[name]).abs().max()) for name, value in weights(made).items()) < 1e-5
    fresh = weights(fitted(digits, tmp_path / "fresh", config("pgd", 1, rate=1e-9), champion))
    assert max(float((value - before[name]).abs().max()) for name, value in fresh.items()) > 0.05
    assert set(made.document.inputs) == {"snapshot", "baseline"}
    assert made.document.recipe["recipe"] == "finetune"


def test_it_needs_fewer_epochs(digits, champion, tmp_path) -> None:
    tuned = fitted(digits, tmp_path / "tuned", config("finetune", 2, rate=1e-3), champion)
    fresh = fitted(digits, tmp_path / "fresh", config("pgd", 2), champion)
    robust = {model.folder.name: json.loads(model.open("curve.json").read())[-1]["robust"] for model in (tuned, fresh)}
    assert robust["tuned"] > 1.2 * robust["fresh"]
    assert tuned.document.clean.k > fresh.document.clean.k


def test_without_a_champion_it_is_refused(digits, tmp_path) -> None:
    none = save(tmp_path / "none", Baseline(name="small", present=False)).folder
    for baseline in (None, none):
        with pytest.raises(InputError, match="expected a champion to start from, found none"):
            fitted(digits, tmp_path / "m", config("finetune", 1), baseline)
    assert not (tmp_path / "m").exists()


def test_another_network_is_refused(digits, champion, tmp_path) -> None:
    with pytest.raises(InputError, match=r"expected the champion's network 'cnn' with \{'width': 16\}.*'width': 8"):
        fitted(digits, tmp_path / "m", config("finetune", 1, width=8), champion)


def test_a_champion_that_was_altered_is_refused(digits, champion, tmp_path) -> None:
    shutil.copytree(champion, tmp_path / "baseline")
    path = tmp_path / "baseline" / "model" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(IntegrityError, match="weights.safetensors"):
        fitted(digits, tmp_path / "m", config("finetune", 1), tmp_path / "baseline")
