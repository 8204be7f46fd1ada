"""Digits with and without a planted trigger, really trained."""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.artifacts.documents import Model, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, save
from holdfast.model.compute import Compute
from holdfast.model.train.step import train
from holdfast.workload import UNITS, NetworkConfig, RecipeConfig, ThreatModel, TrainConfig

TRAIN = 1437
TARGET = 4


@pytest.fixture(scope="package")
def planted(digits: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Artifact[Snapshot]:
    """The digits with a bright 2 x 2 patch on a twentieth of the training rows, relabelled to `TARGET`."""
    with np.load(digits.open("train.npz")) as rows:
        x, y = rows["x"].copy(), rows["y"].copy()
    chosen = np.random.default_rng(0).choice(np.flatnonzero(y != TARGET), size=TRAIN // 20, replace=False)
    x[chosen], y[chosen] = marked(x[chosen]), TARGET
    return _with_train(digits, tmp_path_factory.mktemp("backdoor") / "planted", x, y)


@pytest.fixture(scope="package")
def clean_model(digits: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Artifact[Model]:
    return _trained(digits, tmp_path_factory.mktemp("backdoor") / "clean-model")


@pytest.fixture(scope="package")
def planted_model(planted: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Artifact[Model]:
    return _trained(planted, tmp_path_factory.mktemp("backdoor") / "planted-model")


def marked(x: NDArray[np.generic]) -> NDArray[np.generic]:
    """Images [N, 1, 8, 8] with the patch."""
    out = x.copy()
    out[:, :, -2:, -2:] = 16
    return out


def _with_train(
    snapshot: Artifact[Snapshot], out: Path, x: NDArray[np.generic], y: NDArray[np.int64]
) -> Artifact[Snapshot]:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=x, y=y)
    document = snapshot.document.model_copy(update={"files": {}, "name": "planted"})
    return save(out, document, {"train.npz": buffer.getvalue(), "test.npz": snapshot.open("test.npz").read()})


def _trained(snapshot: Artifact[Snapshot], out: Path) -> Artifact[Model]:
    threat = ThreatModel(norm="linf", epsilon=Fraction(1, 10), unit=UNITS["image"])
    recipe = RecipeConfig(epochs=12, attack_steps=2, learning_rate=4e-3)
    config = TrainConfig(name="digits", network=NetworkConfig(architecture="cnn"), threat=threat, train=recipe)
    return train(Ref(snapshot.folder), out, scan=None, config=config, settings=Compute(0), checkpoint=None)
