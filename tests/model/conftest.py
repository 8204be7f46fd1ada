"""Small real snapshots, in the layout that the snapshot step writes."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

from holdfast.artifacts.documents import Column, Snapshot, SourceFile
from holdfast.artifacts.folder import Artifact, save

SOURCE = SourceFile(path="data", sha256=hashlib.sha256(b"").hexdigest(), bytes=0)


def image_snapshot(
    out: Path, x: NDArray[np.generic], y: NDArray[np.int64], *, train: int, upper: float = 16.0
) -> Artifact[Snapshot]:
    """The first `train` images [N, C, H, W] are the training rows."""
    classes = tuple(str(i) for i in range(int(y.max()) + 1))
    files = {name: _npz(x[rows], y[rows]) for name, rows in _splits(train)}
    return save(out, _document("image", classes, y, train, shape=x.shape[1:], upper=upper), files)


def table_snapshot(
    out: Path, frame: pd.DataFrame, columns: tuple[Column, ...], classes: tuple[str, ...], *, train: int
) -> Artifact[Snapshot]:
    """`frame` holds the columns and, last, `label` with class names."""
    y = np.array([classes.index(name) for name in frame["label"]])
    files = {
        name.replace("npz", "parquet"): frame.iloc[rows].reset_index(drop=True).to_parquet()
        for name, rows in _splits(train)
    }
    modality = "text" if columns[0].kind == "text" else "tabular"
    shape = (40,) if modality == "text" else (len(columns),)
    return save(out, _document(modality, classes, y, train, shape=shape, columns=columns), files)


@pytest.fixture(scope="session")
def save_table() -> Callable[..., Artifact[Snapshot]]:
    """Saves a table of the test's own as a snapshot."""
    return table_snapshot


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Threads that wait for each other make small networks slower when several tests run at once."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_table() -> Callable[..., Artifact[Snapshot]]:
    """Writes a snapshot of a table or of messages."""
    return table_snapshot


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Artifact[Snapshot]:
    """scikit-learn's digits, 1,437 training rows."""
    data = load_digits()
    order = np.concatenate(train_test_split(np.arange(len(data.target)), test_size=0.2, random_state=0))
    x = data.images[order][:, None].astype(np.uint8)
    return image_snapshot(tmp_path_factory.mktemp("snapshots") / "digits", x, data.target[order], train=1437)


@pytest.fixture(scope="session")
def breast_cancer(tmp_path_factory: pytest.TempPathFactory) -> Artifact[Snapshot]:
    """scikit-learn's breast cancer table, 455 training rows."""
    data = load_breast_cancer(as_frame=True)
    frame = data.data.copy()
    frame["label"] = [str(data.target_names[i]) for i in data.target]
    frame = frame.sample(frac=1, random_state=0).reset_index(drop=True)
    columns = tuple(Column(name=str(name), kind="number") for name in data.data.columns)
    out = tmp_path_factory.mktemp("snapshots") / "breast-cancer"
    return table_snapshot(out, frame, columns, ("malignant", "benign"), train=455)


@pytest.fixture(scope="session")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Artifact[Snapshot]:
    """Messages told apart by their words: 240 training rows."""
    rng = np.random.default_rng(0)
    words = {"ham": ["see", "you", "home", "dinner", "love"], "spam": ["win", "prize", "cash", "claim", "free"]}
    rows = [(" ".join(rng.choice(words[label], 6)), label) for label in rng.choice(["ham", "spam"], 300)]
    frame = pd.DataFrame(rows, columns=["text", "label"])
    columns = (Column(name="text", kind="text"),)
    return table_snapshot(tmp_path_factory.mktemp("snapshots") / "messages", frame, columns, ("ham", "spam"), train=240)


def _document(
    modality: str,
    classes: tuple[str, ...],
    y: NDArray[np.int64],
    train: int,
    *,
    shape: tuple[int, ...],
    columns: tuple[Column, ...] = (),
    upper: float = 1.0,
) -> Snapshot:
    counts = [tuple(np.bincount(part, minlength=len(classes)).tolist()) for part in (y[:train], y[train:])]
    return Snapshot(
        name="small",
        modality=modality,
        root=SOURCE.sha256,
        sources=(SOURCE,),
        label="label",
        classes=classes,
        train_rows=train,
        test_rows=len(y) - train,
        train_per_class=counts[0],
        test_per_class=counts[1],
        columns=columns,
        shape=shape,
        upper=upper,
    )


def _splits(train: int) -> list[tuple[str, slice]]:
    return [("train.npz", slice(None, train)), ("test.npz", slice(train, None))]


def _npz(x: NDArray[np.generic], y: NDArray[np.int64]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=x, y=y.astype(np.int64))
    return buffer.getvalue()
