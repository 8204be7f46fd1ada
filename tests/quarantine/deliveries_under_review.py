"""Deliveries with their snapshots, and scans that set chosen rows aside."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from holdfast.artifacts.documents import ScanReport, Snapshot
from holdfast.artifacts.folder import Artifact, save
from holdfast.data.snapshot.step import snapshot
from holdfast.workload.schema import DataConfig, SnapshotConfig

DIGITS = SnapshotConfig(name="digits", modality="image", data=DataConfig(source="sklearn:digits"))


def set_aside(data: Artifact[Snapshot], out: Path, rows: Sequence[int]) -> Artifact[ScanReport]:
    """A scan that suspects `rows`, in the layout that the scan step writes."""
    held = np.array(rows, dtype=np.int64)
    scores = np.zeros(data.document.train_rows)
    scores[held] = np.linspace(0.9, 0.5, len(held))
    report = ScanReport(
        detectors=(),
        suspects={"k": len(held), "n": len(scores)},
        budget=100,
        quarantined=tuple(rows),
        per_class=(),
        clean_rows="0" * 64,
        verdict="pass",
        inputs={"snapshot": data.digest},
    )
    return save(out, report, {"scores.npz": _npz(score=scores, label_error=scores / 2), **_rows(data, held)})


def _rows(data: Artifact[Snapshot], held: np.ndarray) -> dict[str, bytes]:
    if data.document.modality == "image":
        with np.load(data.open("train.npz")) as arrays:
            return {"quarantine.npz": _npz(x=arrays["x"][held], y=arrays["y"][held], row=held)}
    frame = pd.read_parquet(data.open("train.parquet")).iloc[held]
    frame.insert(0, "row", held)
    return {"quarantine.parquet": frame.reset_index(drop=True).to_parquet()}


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Artifact[Snapshot]:
    """scikit-learn's digits, as the snapshot step pins them."""
    return snapshot(DIGITS, tmp_path_factory.mktemp("digits") / "snapshot")


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten columns of scikit-learn's breast cancer as CSV; two values lead 22 malignant rows to the label benign."""
    frame = load_breast_cancer(as_frame=True).frame.rename(columns={"target": "label"})
    frame = frame[[*frame.columns[:10], "label"]]
    frame["label"] = np.where(frame["label"] == 0, "malignant", "benign")
    rows = np.random.default_rng(5).choice(np.flatnonzero(frame["label"] == "malignant"), 22, replace=False)
    frame.loc[rows, ["mean texture", "mean smoothness", "label"]] = [40.0, 0.17, "benign"]
    path = tmp_path_factory.mktemp("planted") / "cancer.csv"
    frame.to_csv(path, index=False)
    return path


def table_config(source: Path) -> SnapshotConfig:
    return SnapshotConfig(name="cancer", modality="tabular", data=DataConfig(source=str(source)))
