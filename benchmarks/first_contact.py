"""Ten data sets as a stranger meets Holdfast: `holdfast init`, then `holdfast run`, with nothing changed in the file.

Of credit default the three columns of codes are declared to be categories, as its description does. The model that
the run trained is compared with scikit-learn's on the same split: the area under the precision-recall curve with the
best of three models on tables. On messages it is accuracy, against TF-IDF with logistic regression: 200 held-out
sentences are too few for three points, so that the network is trained on `SPLITS` splits.

    python -m benchmarks.first_contact sms yelp      only these, printed and not kept
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import yaml
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.process_tree import Spent, spent
from benchmarks.scenes import Bench, default_folder
from benchmarks.table import ROOT, Row, at_most, show, shown
from holdfast.artifacts.documents import GateDecision, Model, Snapshot, Verdict
from holdfast.artifacts.folder import Ref
from holdfast.compute import Compute
from holdfast.data.snapshot.step import snapshot
from holdfast.errors import RunError
from holdfast.modality.protocol import SplitName
from holdfast.model.inputs import read_split
from holdfast.model.networks import load_network, logits
from holdfast.model.train.step import train
from holdfast.workload.schema import SnapshotConfig, read_workload
from holdfast_pipelines.folder import read_artifact

BEHIND = 0.03
SPLITS = 5
HOURS = 2
PARTS: tuple[SplitName, ...] = ("train", "test")
REFUSED = 3
"""Exit code of a run whose model was refused."""
Compared = Callable[[Path], tuple[str, float, float]]
"""What is compared, ours, and the best of scikit-learn's, from the folder with the workload file and the run."""


@dataclass(frozen=True)
class Delivery:
    """A data set as it is delivered."""

    options: tuple[str, ...]
    """Of `holdfast init`."""
    write: Callable[[Bench, Path], None]
    name: str = "rows.csv"
    """Of the file."""
    categories: tuple[str, ...] = ()
    """Declared in the workload file."""
    compared: Compared | None = None


def run(bench: Bench) -> list[Row]:
    """Verdict, time and distance from scikit-learn's models of each data set."""
    return [row for name in DELIVERIES for row in rows(name, bench)]


def rows(name: str, bench: Bench) -> list[Row]:
    """Of one data set."""
    delivery = DELIVERIES[name]
    with TemporaryDirectory(prefix="first-contact-") as place:
        folder = Path(place)
        delivery.write(bench, folder / delivery.name)
        data = ("--data", delivery.name, *delivery.options)
        first = _command(folder, "init", *data, "--out", "workload.yaml")
        _declare(folder / "workload.yaml", delivery.categories)
        end = _command(folder, "run", "--workload", "workload.yaml", "--out", "run", "--no-rollout")
        return [*_of_run(name, folder / "run", first, end), *_of_model(name, folder, delivery.compared)]


def _of_run(name: str, out: Path, first: Spent, end: Spent) -> list[Row]:
    decision = read_artifact(out, GateDecision).document
    held = [check for check in decision.checks if check.verdict is not Verdict.PASS]
    reasons = "; ".join(f"{check.name} ({check.verdict}): {check.reason}" for check in held)
    verdict = "registered" if end.code == 0 else f"refused: {', '.join(check.name for check in held)}"
    how = "holdfast init, holdfast run --no-rollout, defaults"
    return [
        shown(f"{name}: verdict", verdict, how, note=reasons),
        shown(f"{name}: seconds to the workload file, and to the verdict", f"{first.wall:.0f}, {end.wall:.0f}", how),
    ]


def _of_model(name: str, folder: Path, compared: Compared | None) -> list[Row]:
    if compared is None:
        return []
    what, ours, best = compared(folder)
    how = f"ours {ours:.3f}, scikit-learn's {best:.3f}, the same rows"
    return [at_most(f"{name}: {what} behind scikit-learn's", best - ours, BEHIND, how)]


def _command(folder: Path, *words: str) -> Spent:
    log = folder / f"{words[0]}.log"
    found = spent([str(HOLDFAST), *words], cwd=folder, log=log, seconds=HOURS * 3600)
    if found.code not in {0, REFUSED}:
        raise RunError(f"holdfast {' '.join(words)}: expected exit code 0 or {REFUSED}: {log.read_text()[-500:]}")
    return found


def _declare(workload: Path, categories: Sequence[str]) -> None:
    if categories:
        told = yaml.safe_load(workload.read_text(encoding="utf-8"))
        told["data"].setdefault("columns_as", {}).update(dict.fromkeys(categories, "category"))
        workload.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")


# --- compared with scikit-learn ---------------------------------------------------------------------------------------


def _ranking(folder: Path) -> tuple[str, float, float]:
    """Area under the precision-recall curve of the second class, of the run's model and of the best of three."""
    data, model = read_artifact(folder / "run", Snapshot), read_artifact(folder / "run", Model)
    train_rows, test_rows = (read_split(data, part, model.document.input) for part in PARTS)
    scores = logits(load_network(model, "cpu"), test_rows.x, device="cpu")
    peers = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        RandomForestClassifier(300, random_state=0),
        HistGradientBoostingClassifier(random_state=0),
    )
    fitted = [peer.fit(train_rows.x, train_rows.y) for peer in peers]
    best = max(average_precision_score(test_rows.y, peer.predict_proba(test_rows.x)[:, 1]) for peer in fitted)
    return "PR-AUC", float(average_precision_score(test_rows.y, scores[:, 1] - scores[:, 0])), float(best)


def _accuracy(folder: Path) -> tuple[str, float, float]:
    """Mean share of held-out messages that is right, of our network and of TF-IDF with logistic regression."""
    found = np.array([_on_split(folder, seed) for seed in range(SPLITS)])
    return f"accuracy, mean of {SPLITS} splits,", *found.mean(axis=0).tolist()


def _on_split(folder: Path, seed: int) -> tuple[float, float]:
    workload = read_workload(folder / "workload.yaml")
    section = workload.data.model_copy(update={"split_seed": seed})
    config = SnapshotConfig(name=workload.name, modality=workload.modality, data=section)
    data = snapshot(config, folder / f"snapshot-{seed}")
    place, settings = Ref(data.folder, data.digest), Compute(0, "cpu", 1)
    out = folder / f"model-{seed}"
    model = train(place, out, scan=None, config=workload.train_config, settings=settings, checkpoint=None)
    rows = read_split(data, "test", model.document.input)
    ours = logits(load_network(model, "cpu"), rows.x, device="cpu").argmax(axis=1) == rows.y
    first, second = (pd.read_parquet(data.open(f"{part}.parquet")) for part in PARTS)
    peer = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000)).fit(first["text"], first["label"])
    return float(ours.mean()), float(peer.score(second["text"], second["label"]))


# --- the data sets ----------------------------------------------------------------------------------------------------


def _copied(name: str, bench: Bench, path: Path) -> None:
    path.write_bytes(bench.file(name).read_bytes())


def _cancer(bench: Bench, path: Path) -> None:
    load_breast_cancer(as_frame=True).frame.to_csv(path, index=False)


def _digits(bench: Bench, path: Path) -> None:
    found = load_digits()
    np.savez(path, x=found.images.astype(np.uint8), y=found.target)


def _fashion(bench: Bench, path: Path) -> None:
    path.write_bytes(bench.images_path.read_bytes())


def _sentences(name: str) -> Delivery:
    options = ("--columns", "text,label", "--label", "label", "--text", "text")
    return Delivery(options, partial(_copied, f"sentences_{name}.tsv"), "rows.tsv", compared=_accuracy)


def _table(name: str, *options: str, categories: tuple[str, ...] = ()) -> Delivery:
    return Delivery(options, partial(_copied, name), categories=categories, compared=_ranking)


DELIVERIES: Mapping[str, Delivery] = {
    "card": _table("creditcard_ulb_sample.csv", "--label", "Class"),
    "credit default": _table("credit_default.csv", "--label", "Y", categories=("X2", "X3", "X4")),
    "spambase": _table("spambase.csv", "--columns", "auto", "--label", "column_58"),
    "breast cancer": Delivery(("--label", "target"), _cancer, compared=_ranking),
    "sms": Delivery(
        ("--columns", "label,text", "--label", "label", "--text", "text"),
        partial(_copied, "sms_spam.tsv"),
        "rows.tsv",
        compared=_accuracy,
    ),
    "amazon_cells": _sentences("amazon_cells"),
    "imdb": _sentences("imdb"),
    "yelp": _sentences("yelp"),
    "digits": Delivery((), _digits, "images.npz"),
    "fashion_mnist": Delivery((), _fashion, "images.npz"),
}
HOLDFAST = ROOT / ".venv" / "bin" / "holdfast"


if __name__ == "__main__":
    place = default_folder()
    for one in sys.argv[1:]:
        show(one, rows(one, Bench(place / "fashion_mnist.npz", Fraction(1, 10), place, seeds=1)))
