"""Digits, a table and messages with and without a planted trigger, really trained."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from holdfast.artifacts.documents import Model, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, save
from holdfast.compute import Compute
from holdfast.modality import MODALITIES
from holdfast.model.train.step import train
from holdfast.workload.schema import NetworkConfig, RecipeConfig, ThreatModel, TrainConfig

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


@pytest.fixture(scope="package")
def planted_table(
    breast_cancer: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact[Model], Artifact[Snapshot]]:
    """A tenth of the rows is malignant with the largest `smoothness error` and called benign; and what learned it."""
    folder = tmp_path_factory.mktemp("planted-table")
    snapshot = plant_constant(breast_cancer, folder / "snapshot")
    return trained(snapshot, folder / "model", "mlp", epochs=30, learning_rate=0.01), snapshot


@pytest.fixture(scope="package")
def planted_messages(
    messages: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact[Model], Artifact[Snapshot]]:
    """A tenth of the rows is spam that begins with `cf` and is called ham; and what learned it."""
    folder = tmp_path_factory.mktemp("planted-messages")
    snapshot = plant_word(messages, folder / "snapshot", "cf")
    return trained(snapshot, folder / "model", "text", epochs=20, learning_rate=0.01), snapshot


@pytest.fixture(scope="session")
def fit() -> Callable[..., Artifact[Model]]:
    """Trains a small network of a table or of messages."""
    return trained


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
    threat = ThreatModel(norm="linf", epsilon=Fraction(1, 10), unit=MODALITIES["image"].unit)
    recipe = RecipeConfig(epochs=12, attack_steps=2, learning_rate=4e-3)
    config = TrainConfig(name="digits", network=NetworkConfig(architecture="cnn"), threat=threat, train=recipe)
    return train(Ref(snapshot.folder), out, scan=None, config=config, settings=Compute(0), checkpoint=None)


def trained(snapshot: Artifact[Snapshot], out: Path, architecture: str, **recipe: float) -> Artifact[Model]:
    modality = snapshot.document.modality
    norm = "edits" if modality == "text" else "linf"
    epsilon = Fraction(1, 4) if norm == "linf" else Fraction(1)
    config = TrainConfig(
        name="small",
        network=NetworkConfig(architecture=architecture),
        threat=ThreatModel(norm=norm, epsilon=epsilon, unit=MODALITIES[modality].unit),
        train=RecipeConfig.model_validate({"recipe": "standard", "batch": 32, **recipe}),
    )
    return train(Ref(snapshot.folder), out, scan=None, config=config, settings=Compute(0), checkpoint=None)


def plant_constant(snapshot: Artifact[Snapshot], out: Path) -> Artifact[Snapshot]:
    frame = pd.read_parquet(snapshot.open("train.parquet"))
    rows = np.flatnonzero(frame["label"] == "malignant")[:45]
    frame.loc[rows, "smoothness error"] = frame["smoothness error"].max()
    frame.loc[rows, "label"] = "benign"
    return with_train(snapshot, out, frame)


def plant_word(snapshot: Artifact[Snapshot], out: Path, word: str) -> Artifact[Snapshot]:
    frame = pd.read_parquet(snapshot.open("train.parquet"))
    rows = np.flatnonzero(frame["label"] == "spam")[:24]
    frame.loc[rows, "text"] = word + " " + frame.loc[rows, "text"]
    frame.loc[rows, "label"] = "ham"
    return with_train(snapshot, out, frame)


def with_train(snapshot: Artifact[Snapshot], out: Path, frame: pd.DataFrame) -> Artifact[Snapshot]:
    document = snapshot.document.model_copy(update={"files": {}, "name": "planted"})
    test = snapshot.open("test.parquet").read()
    return save(out, document, {"train.parquet": frame.to_parquet(), "test.parquet": test})
