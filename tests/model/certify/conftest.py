"""Small networks, really trained, for the certificates."""

from fractions import Fraction
from pathlib import Path

import pytest

from holdfast.artifacts.documents import Model, Snapshot
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.compute import Compute
from holdfast.modality import MODALITIES
from holdfast.model.train.step import train
from holdfast.workload.schema import NetworkConfig, RecipeConfig, ThreatModel, TrainConfig


def _trained(snapshot: Artifact[Snapshot], out: Path, threat: ThreatModel, architecture: str) -> Artifact[Model]:
    recipe = RecipeConfig(epochs=6, attack_steps=1, noise=0.1, selection_rows=100)
    config = TrainConfig(name="small", network=NetworkConfig(architecture=architecture), threat=threat, train=recipe)
    return train(Ref(snapshot.folder), out, scan=None, config=config, settings=Compute(0), checkpoint=None)


@pytest.fixture(scope="package")
def trained(digits: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Artifact[Model]:
    threat = ThreatModel(norm="linf", epsilon=Fraction(1, 50), unit=MODALITIES["image"].unit)
    return _trained(digits, tmp_path_factory.mktemp("certify") / "digits", threat, "cnn")


@pytest.fixture(scope="package")
def spam_model(messages: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Artifact[Model]:
    threat = ThreatModel(norm="edits", epsilon=Fraction(1), unit=MODALITIES["text"].unit)
    return _trained(messages, tmp_path_factory.mktemp("certify") / "messages", threat, "text")
