import pytest
import torch
from pydantic import ValidationError

from holdfast.artifacts.documents import Snapshot, ThreatModel
from holdfast.artifacts.folder import Artifact
from holdfast.modality.ball import Ball
from holdfast.model.inputs import read_spec, read_split
from holdfast.model.networks import build
from holdfast.model.train.art_trainers import ArtTraining
from holdfast.workload.schema import NetworkConfig, RecipeConfig


def training(digits: Artifact[Snapshot], recipe: str, epochs: int = 2) -> ArtTraining:
    spec = read_spec(digits)
    ball = Ball.of(ThreatModel(norm="linf", epsilon="1/10", unit="any"), spec, "cpu")
    net = build(NetworkConfig(architecture="cnn", arguments={"width": 4}), spec, 10, seed=0)
    config = RecipeConfig.model_validate(
        {"engine": "art", "recipe": recipe, "epochs": epochs, "attack_steps": 2, "learning_rate": 0.005, "batch": 64}
    )
    return ArtTraining(net, read_split(digits, "train", spec), ball, config, seed=0)


@pytest.mark.parametrize("recipe", ["pgd", "trades", "awp"])
def test_the_trainers_that_work_train(digits: Artifact[Snapshot], recipe: str) -> None:
    made = training(digits, recipe)
    rows = [made.advance(), made.advance()]
    assert made.finished
    # A tenth would be chance.
    assert rows[-1] is not None
    assert rows[-1].clean > 0.5 * rows[-1].rows
    assert rows[-1].robust > 0.2 * rows[-1].rows


def test_the_seed_decides_and_the_epoch_is_where_it_goes_on(digits: Artifact[Snapshot]) -> None:
    whole, first, second = (training(digits, "pgd") for _ in range(3))
    whole.advance()
    first.advance()
    assert all(torch.equal(a, b) for a, b in zip(whole.net.parameters(), first.net.parameters(), strict=True))
    second.restore_state(*first.export_state())
    whole.advance()
    second.advance()
    assert all(torch.equal(a, b) for a, b in zip(whole.net.parameters(), second.net.parameters(), strict=True))


@pytest.mark.parametrize("recipe", ["fgsm-rs", "curriculum", "standard"])
def test_a_trainer_that_does_not_work_is_refused(recipe: str) -> None:
    with pytest.raises(ValidationError, match=f"engine art runs pgd, trades, awp, not {recipe}"):
        RecipeConfig.model_validate({"engine": "art", "recipe": recipe})
