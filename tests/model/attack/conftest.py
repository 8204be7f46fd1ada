"""An adversarially trained digits network, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from holdfast.artifacts.documents import Model, Snapshot, ThreatModel
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.compute import Compute
from holdfast.modality.ball import Ball
from holdfast.model.inputs import read_split
from holdfast.model.networks import load_network
from holdfast.model.train.step import train
from holdfast.workload.schema import NetworkConfig, RecipeConfig, TrainConfig

SETTINGS = Compute(seed=0, device="cpu", threads=1)


def trained(out: Path, data: Artifact[Snapshot], *, recipe: str, epochs: int, width: int = 8) -> Artifact[Model]:
    """A digits model of that recipe at linf 1/10."""
    config = TrainConfig(
        name="digits",
        network=NetworkConfig(architecture="cnn", arguments={"width": width}),
        threat=ThreatModel(norm="linf", epsilon="1/10", unit="input units [0, 1]"),
        train=RecipeConfig.model_validate(
            {"recipe": recipe, "epochs": epochs, "batch": 64, "learning_rate": 5e-3, "attack_steps": 4}
        ),
    )
    return train(Ref(data.folder), out, scan=None, config=config, settings=SETTINGS, checkpoint=None)


@pytest.fixture(scope="session")
def robust(digits: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Artifact[Model]:
    """Trained with PGD."""
    return trained(tmp_path_factory.mktemp("models") / "robust", digits, recipe="pgd", epochs=12)


@pytest.fixture(scope="session")
def plain(digits: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Artifact[Model]:
    """Trained without attacks."""
    return trained(tmp_path_factory.mktemp("models") / "plain", digits, recipe="standard", epochs=6)


@pytest.fixture(scope="session")
def train_digits(digits: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], nn.Module]:
    """A network after six epochs of a recipe."""

    def make(recipe: str) -> nn.Module:
        out = tmp_path_factory.mktemp("models") / recipe
        return load_network(trained(out, digits, recipe=recipe, epochs=6), "cpu")

    return make


@pytest.fixture
def scene(robust: Artifact[Model], digits: Artifact[Snapshot]) -> tuple[nn.Module, torch.Tensor, torch.Tensor, Ball]:
    """The robust network, 200 held-out examples, their classes and the ball."""
    rows = read_split(digits, "test", robust.document.input)
    ball = Ball.of(robust.document.threat, robust.document.input, "cpu")
    return load_network(robust, "cpu"), torch.from_numpy(rows.x[:200]), torch.from_numpy(rows.y[:200]), ball


@pytest.fixture
def plain_net(plain: Artifact[Model]) -> nn.Module:
    """The network trained without attacks."""
    return load_network(plain, "cpu")
