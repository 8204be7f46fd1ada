"""Attack and certify in parts: the bytes and the CPU-seconds of one process against those of four and of the join."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.scenes import Bench
from benchmarks.table import Row, shown
from holdfast.artifacts.arrays import npz
from holdfast.artifacts.documents import Snapshot, SourceFile, ThreatModel
from holdfast.artifacts.folder import DOCUMENT, Ref, save
from holdfast.compute import Compute
from holdfast.model.train.step import train
from holdfast.workload.schema import NetworkConfig, RecipeConfig, TrainConfig

PARTS = 4
TRAINED, ZEROS = 773, "0" * 64
"""The other 1,024 digits are held out: four blocks of an attack on a CPU."""
WORK = {
    "attack": '{"tier": "nightly", "examples": 1024, "second_opinion": false}',
    "certify": '{"noise": 0.25, "samples": 1000, "examples": 1024}',
}
HOW = f"digits 8 x 8, cnn, 1,024 examples, one thread; {PARTS} processes of holdfast and one that joins"


def run(bench: Bench) -> list[Row]:
    """Two rows about CPU and one about bytes for each step."""
    with tempfile.TemporaryDirectory(prefix="holdfast-shards-") as folder:
        place = Path(folder)
        _prepare(place)
        return [row for step, config in WORK.items() for row in _rows(place, step, config)]


@dataclass(frozen=True)
class _Process:
    """One `holdfast` that has ended."""

    out: Path
    seconds: float
    """Of CPU, of it and its children."""


def _rows(place: Path, step: str, config: str) -> list[Row]:
    whole = _process(place, step, config, "whole")
    parts = [_process(place, step, config, f"part-{n}", f"--shard={n}/{PARTS}") for n in range(1, PARTS + 1)]
    joined = _process(place, step, config, "joined", *(f"--part={part.out}" for part in parts))
    same = (whole.out / DOCUMENT).read_bytes() == (joined.out / DOCUMENT).read_bytes()
    longest, total = max(part.seconds for part in parts), sum(one.seconds for one in (*parts, joined))
    return [
        Row(f"{step}: the report of {PARTS} parts is that of one process, byte for byte", str(same), HOW, "True", same),
        shown(
            f"{step}: longest part and join, CPU-seconds of one process",
            (longest + joined.seconds) / whole.seconds,
            HOW,
        ),
        shown(f"{step}: all parts and join, CPU-seconds of one process", total / whole.seconds, HOW),
        shown(f"{step}: one process, CPU-seconds", whole.seconds, HOW),
    ]


def _process(place: Path, step: str, config: str, name: str, *more: str) -> _Process:
    out = place / f"{step}-{name}"
    given = [f"--model={place / 'model'}", f"--snapshot={place / 'snapshot'}", f"--config={config}", f"--out={out}"]
    return _Process(out, _cpu([sys.executable, "-m", "holdfast", step, *given, *more]))


def _cpu(command: Sequence[str]) -> float:
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _prepare(place: Path) -> None:
    """A snapshot of the digits and a network that was trained on them."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = data.images[order][:, None].astype(np.uint8), data.target[order].astype(np.int64)
    per_class = [tuple(np.bincount(part, minlength=10).tolist()) for part in (y[:TRAINED], y[TRAINED:])]
    document = Snapshot(
        name="digits",
        modality="image",
        root=ZEROS,
        sources=(SourceFile(path="digits", sha256=ZEROS, bytes=0),),
        label="label",
        classes=tuple(map(str, range(10))),
        train_rows=TRAINED,
        test_rows=len(y) - TRAINED,
        train_per_class=per_class[0],
        test_per_class=per_class[1],
        shape=(1, 8, 8),
        upper=16.0,
    )
    halves = {"train": slice(TRAINED), "test": slice(TRAINED, None)}
    save(place / "snapshot", document, {f"{name}.npz": npz(x=x[rows], y=y[rows]) for name, rows in halves.items()})
    config = TrainConfig(
        name="digits",
        network=NetworkConfig(architecture="cnn", arguments={"width": 16}),
        threat=ThreatModel(norm="linf", epsilon=Fraction(1, 10), unit="input units [0, 1]"),
        train=RecipeConfig(recipe="pgd", epochs=8, batch=64, learning_rate=5e-3, attack_steps=4),
    )
    snapshot = Ref(place / "snapshot")
    train(snapshot, place / "model", scan=None, config=config, settings=Compute(0, "cpu", 1), checkpoint=None)
