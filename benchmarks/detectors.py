"""Detectors of single adversarial inputs on real models: noticed where they are not known, and where they are.

    python -m benchmarks detectors

Nothing here has a target: the page is there to show what such a detector is worth.
"""

import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.scenes import Bench
from benchmarks.table import Row, shown
from holdfast.artifacts.arrays import npz
from holdfast.artifacts.documents import Column, Count, DetectionReport, Snapshot, SourceFile, ThreatModel
from holdfast.artifacts.folder import Ref, save
from holdfast.compute import Compute
from holdfast.modality import modality_of
from holdfast.model.detect.step import detect
from holdfast.model.train.step import train
from holdfast.workload.schema import DetectConfig, NetworkConfig, RecipeConfig, TrainConfig

TRAINED, HELD_OUT, EXAMPLES = 10_000, 3_000, 200
ZEROS = "0" * 64


@dataclass(frozen=True)
class _Subject:
    """A data set, its network and what is changed in it."""

    name: str
    snapshot: Path
    modality: str
    network: str
    epsilon: Fraction
    epochs: int


def run(bench: Bench) -> list[Row]:
    """Rows for images, a table and messages."""
    with tempfile.TemporaryDirectory(prefix="holdfast-detectors-") as folder:
        place = Path(folder)
        subjects = (
            _Subject("fashion_mnist", _images(bench, place / "fashion"), "image", "cnn", Fraction(1, 20), 5),
            _Subject("credit default", _table(bench, place / "credit"), "tabular", "mlp", Fraction(1, 4), 10),
            _Subject("sms_spam", _messages(bench, place / "sms"), "text", "text", Fraction(3), 10),
        )
        return [row for subject in subjects for row in _rows(subject, _measured(subject, place))]


def _measured(subject: _Subject, place: Path) -> DetectionReport:
    snapshot, modality, settings = Ref(subject.snapshot), modality_of(subject.modality), Compute(0, "cpu", 1)  # type: ignore[arg-type]
    threat = ThreatModel(norm=modality.norms[0], epsilon=subject.epsilon, unit=modality.unit)
    recipe = RecipeConfig(recipe="standard", epochs=subject.epochs, selection_rows=500)
    config = TrainConfig(name="small", network=NetworkConfig(architecture=subject.network), threat=threat, train=recipe)
    model = place / f"{subject.snapshot.name}-model"
    train(snapshot, model, scan=None, config=config, settings=settings, checkpoint=None)
    chosen, out = DetectConfig(examples=EXAMPLES), place / f"{subject.snapshot.name}-report"
    return detect(Ref(model), snapshot, out, config=chosen, settings=settings).document


def _rows(subject: _Subject, found: DetectionReport) -> list[Row]:
    how = (
        f"{subject.network}, standard training on {TRAINED:,} rows at most, {found.threat.norm} {subject.epsilon}, "
        f"{found.clean.n} examples; limits for 5 % from {found.calibration_rows} rows"
    )
    rows = [shown(f"{subject.name}: right answers without attacks, under all", _two(found.clean, found.attacked), how)]
    for one in found.detectors:
        caught = ", ".join(f"{c.attack} {c.caught.k} of {c.caught.n}" for c in one.caught)
        note = (
            f"false alarms {one.false_alarms.k} of {one.false_alarms.n}; caught of those who do not know it: {caught}"
        )
        title = f"{subject.name}: wrong and unnoticed by {one.name}, attacker knows it"
        rows.append(shown(title, f"{one.evaded.k} of {one.evaded.n}", how, note=note))
    for purifier in found.purifiers:
        note = f"without attacks {purifier.clean.k}, under attacks that do not know it {purifier.attacked.k}"
        value = f"{purifier.adaptive.k} of {purifier.adaptive.n}"
        rows.append(shown(f"{subject.name}: right behind {purifier.name}, attacker knows it", value, how, note=note))
    return rows


def _two(one: Count, other: Count) -> str:
    return f"{one.share:.2f}, {other.share:.2f}"


def _images(bench: Bench, out: Path) -> Path:
    images = bench.images
    x = np.concatenate([images.train.x[:TRAINED], images.test.x[:HELD_OUT]])
    y = np.concatenate([images.train.y[:TRAINED], images.test.y[:HELD_OUT]])
    x = (x * 255).round().astype(np.uint8)
    files = {"train.npz": npz(x=x[:TRAINED], y=y[:TRAINED]), "test.npz": npz(x=x[TRAINED:], y=y[TRAINED:])}
    classes = tuple(str(i) for i in range(images.classes))
    return _saved(out, "image", classes, y, TRAINED, files, shape=x.shape[1:], upper=255.0)


def _table(bench: Bench, out: Path) -> Path:
    table = pd.read_csv(bench.file("credit_default.csv")).drop(columns="ID").sample(frac=1, random_state=0)
    columns = tuple(Column(name=str(name), kind="number") for name in table.columns if name != "Y")
    table = table.rename(columns={"Y": "label"}).astype({"label": str})[: TRAINED + HELD_OUT].reset_index(drop=True)
    return _frames(out, "tabular", table, columns, ("0", "1"), TRAINED, (len(columns),))


def _messages(bench: Bench, out: Path) -> Path:
    table = pd.read_csv(bench.file("sms_spam.tsv"), sep="\t", names=["label", "text"], quoting=3)
    table = table.drop_duplicates("text").sample(frac=1, random_state=0).reset_index(drop=True)[["text", "label"]]
    trained = len(table) * 3 // 5
    return _frames(out, "text", table, (Column(name="text", kind="text"),), ("ham", "spam"), trained, (160,))


def _frames(
    out: Path, modality: str, table: pd.DataFrame, columns: tuple[Column, ...], classes: tuple[str, ...],
    trained: int, shape: tuple[int, ...],
) -> Path:  # fmt: skip
    y = table["label"].map(classes.index).to_numpy(np.int64)
    parts = {"train": table.iloc[:trained], "test": table.iloc[trained:]}
    files = {f"{name}.parquet": part.reset_index(drop=True).to_parquet() for name, part in parts.items()}
    return _saved(out, modality, classes, y, trained, files, shape=shape, columns=columns)


def _saved(
    out: Path, modality: str, classes: tuple[str, ...], y: np.ndarray, trained: int, files: dict[str, bytes],
    **more: object,
) -> Path:  # fmt: skip
    counts = [tuple(np.bincount(part, minlength=len(classes)).tolist()) for part in (y[:trained], y[trained:])]
    document = Snapshot.model_validate(
        {
            "name": "small", "modality": modality, "root": ZEROS, "label": "label", "classes": classes,
            "sources": (SourceFile(path="data", sha256=ZEROS, bytes=0),), "train_rows": trained,
            "test_rows": len(y) - trained, "train_per_class": counts[0], "test_per_class": counts[1], **more,
        }
    )  # fmt: skip
    return save(out, document, files).folder
