"""A toy world in which users' rows are known: three clouds, one per class, in 12 dimensions."""

from collections.abc import Callable

import numpy as np
import pytest

from holdfast.serving.guard.calibration import Calibration, Samples, calibrate

CLASSES, WIDTH = 3, 12
Draw = Callable[..., Samples]


def cloud(rows: int, seed: int, *, only: int | None = None, shift: float = 0.0) -> Samples:
    """Rows of the classes in turn, or of one; class 2 is twice as wide. A shift moves them away."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % CLASSES if only is None else np.full(rows, only)
    wide = np.where(labels == 2, 2.0, 1.0)[:, None]
    features = np.eye(CLASSES, WIDTH)[labels] * 6 + wide * rng.standard_normal((rows, WIDTH)) + shift
    return Samples(features.astype(np.float32), labels.astype(np.int64))


@pytest.fixture(scope="session")
def draw() -> Draw:
    return cloud


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    return calibrate(cloud(1500, 0), cloud(2400, 1), CLASSES, seed=0, delta=0.01)
