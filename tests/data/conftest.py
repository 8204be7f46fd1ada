"""Deliveries small enough to write in a test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.artifacts.documents import Modality, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.data.snapshot.step import snapshot
from holdfast.workload.schema import DataConfig, SnapshotConfig

Take = Callable[..., Artifact[Snapshot]]


@pytest.fixture
def take(tmp_path: Path) -> Take:
    """Takes a snapshot of a source; keywords are those of the data section."""
    made = iter(range(1000))

    def _take(source: Path | str, modality: Modality = "tabular", **data: Any) -> Artifact[Snapshot]:
        config = SnapshotConfig(name="test", modality=modality, data=DataConfig(source=str(source), **data))
        return snapshot(config, tmp_path / f"snapshot-{next(made)}")

    return _take


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file into the test's folder."""

    def _write(content: bytes | str, name: str = "data.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


@pytest.fixture
def save_npz(tmp_path: Path) -> Callable[..., Path]:
    """Writes arrays into an NPZ."""

    def _save(name: str = "data.npz", **arrays: NDArray[Any]) -> Path:
        np.savez_compressed(tmp_path / name, **arrays)
        return tmp_path / name

    return _save


@pytest.fixture(scope="session")
def digits() -> tuple[NDArray[Any], NDArray[Any]]:
    """scikit-learn's digits, read by scikit-learn: images float64[1797, 8, 8] in [0, 16] and labels int64[1797]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target
