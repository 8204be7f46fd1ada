"""Rare classes: does a model that never answers one pass, and is a learnable one learned?

Tables of 12,000 rows and 10 columns with 3, 1 and 0.5 % positives. Learnable: in positives three columns are shifted by
1.5 standard deviations and two more have the same sign. Not learnable: the label depends on nothing. Each is trained
from the file that `holdfast init` writes and judged by the default policy's checks of the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.judged import judge
from benchmarks.scenes import Bench
from benchmarks.table import Row, at_least, at_most, shown
from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.data.snapshot.inspection.starter import starter

ROWS, COLUMNS = 12_000, 10
SHARES = (0.03, 0.01, 0.005)
SEEDS = 20
POSITIVE = "fraud"


@dataclass(frozen=True)
class Ran:
    """One table, its model, and what scikit-learn's models reach on the same rows."""

    passed: bool
    blind: bool
    """Whether the model answers no held-out row of some class with it."""
    recall: float
    """Of the positives, held out, without an attack."""
    best_recall: float
    """The better one of class-weighted logistic regression and gradient boosting."""
    held_by: tuple[str, ...]


def run(bench: Bench) -> list[Row]:
    """Passes of blind models, and recall at 3 %."""
    return [row for share in SHARES for learnable in (True, False) for row in _rows(share, learnable)]


def table(share: float, *, learnable: bool, seed: int) -> pd.DataFrame:
    """A table with a `label` column; exactly the rounded share of the rows is positive."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, COLUMNS))
    positive = np.zeros(ROWS, dtype=bool)
    positive[rng.permutation(ROWS)[: round(share * ROWS)]] = True
    if learnable:
        x[positive, :3] += 1.5
        x[positive, 3] = np.abs(x[positive, 3]) * np.sign(x[positive, 4])
    frame = pd.DataFrame(x, columns=[f"v{i}" for i in range(COLUMNS)])
    return frame.assign(label=np.where(positive, POSITIVE, "normal"))


def _rows(share: float, learnable: bool) -> list[Row]:
    found = [_one(share, learnable, seed) for seed in range(SEEDS)]
    kind = "learnable" if learnable else "not learnable"
    what = f"{share:.1%} positives, {kind}"
    how = f"{ROWS} rows, {COLUMNS} columns, {SEEDS} seeds; init's file; the model's checks of the default policy"
    blind = sum(one.passed and one.blind for one in found)
    rows = [at_most(f"{what}: passes of a model with recall 0 in a class", blind, 0, how)]
    rows += [
        shown(f"{what}: passes", float(sum(one.passed for one in found)), how),
        shown(f"{what}: models with recall 0 in a class", float(sum(one.blind for one in found)), how),
        shown(f"{what}: what held the others", _reasons(found), how),
    ]
    if learnable:
        ratio = float(np.mean([one.recall for one in found]) / np.mean([one.best_recall for one in found]))
        target = "recall relative to the better of class-weighted logistic regression and gradient boosting"
        row = (
            at_least(f"{what}: {target}", ratio, 0.8, how)
            if share == SHARES[0]
            else shown(f"{what}: {target}", ratio, how)
        )
        rows.append(row)
    return rows


def _reasons(found: Sequence[Ran]) -> str:
    names = [name for one in found for name in one.held_by]
    return ", ".join(f"{name} {names.count(name)}" for name in sorted(set(names))) or "nothing"


def _one(share: float, learnable: bool, seed: int) -> Ran:
    with TemporaryDirectory(prefix="hf-") as place:
        folder = Path(place)
        table(share, learnable=learnable, seed=seed).to_csv(folder / "rows.csv", index=False)
        (folder / "workload.yaml").write_text(starter(folder / "rows.csv", label="label", text=None).text)
        judged = judge(folder / "workload.yaml", folder, seed=seed)
        recalls = judged.recalls()
        return Ran(
            judged.passed,
            min(recalls.values()) == 0,
            recalls[POSITIVE],
            max(_peer_recalls(judged.data)),
            tuple(check.name for check in judged.held_by),
        )


def _peer_recalls(data: Artifact[Snapshot]) -> list[float]:
    (x, y), (x_test, y_test) = (_arrays(data, part) for part in ("train", "test"))
    peers = (
        make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)),
        HistGradientBoostingClassifier(class_weight="balanced", random_state=0),
    )
    answers = [peer.fit(x, y).predict(x_test) for peer in peers]
    return [float((answer[y_test == POSITIVE] == POSITIVE).mean()) for answer in answers]


def _arrays(data: Artifact[Snapshot], part: str) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    frame = pd.read_parquet(data.open(f"{part}.parquet"))
    return frame.drop(columns="label").to_numpy(np.float64), frame["label"].to_numpy(object)
