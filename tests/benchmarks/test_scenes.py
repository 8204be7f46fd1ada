from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import scenes, training
from benchmarks.scenes import Images


@pytest.fixture
def images(tmp_path: Path) -> Images:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (12, 8, 8)).astype(np.uint8), np.arange(12) % 2
    np.savez(tmp_path / "few.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
    return Images.read(tmp_path / "few.npz", Fraction(1, 10))


def test_a_trained_network_is_kept_until_its_code_or_data_changes(images, tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "CACHE", tmp_path / "cache")
    trained = []

    def make() -> torch.nn.Module:
        trained.append(1)
        return images.network()

    first = images.trained("few", make, images.network(seed=1))[0]
    again = images.trained("few", make, images.network(seed=2))[0]
    assert len(trained) == 1
    assert torch.equal(next(first.parameters()), next(again.parameters()))
    monkeypatch.setattr(scenes, "training_code", lambda: "another loop")
    images.trained("few", make, images.network())
    assert len(trained) == 2


def test_a_hardened_network_is_kept_by_its_recipe(images, tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "CACHE", tmp_path / "cache")
    fitted = []
    monkeypatch.setattr(training, "_fit", lambda some, config: (fitted.append(config), some.network())[::-1])
    for config in (training.FAST, training.FAST, training.FULL):
        training._trained(images, config)
    assert fitted == [training.FAST, training.FULL]
