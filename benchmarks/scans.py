"""Data scans: what they find of planted poison and wrong labels, how quiet they are on clean rows, and what they cost.

Planted: BadNets (a white 3 x 3 patch), a blended random image (0.15), wrong labels, a rare word in messages, two
constants in a table. Rates are of all rows; every condition has its own rows, target class and seeds.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from time import process_time

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from torch import nn

from benchmarks.scenes import Bench, Images
from benchmarks.table import Row, at_least, at_most, cpu_seconds, shown
from holdfast.artifacts.documents import Feature, InputSpec
from holdfast.modality.text import decode_text, encode_text
from holdfast.model.inputs import Arrays
from holdfast.model.learners import (
    Learner,
    fit_network,
    image_learner,
    network_features,
    network_probabilities,
    table_learner,
    text_learner,
)
from holdfast.model.scan.combine import Findings, ScanSettings, scan_rows
from holdfast.model.scan.crossfit import out_of_fold
from holdfast.model.scan.labels import FALSE_ALARM_RATE, LabelErrors, find_label_errors, label_suspicion
from holdfast.model.scan.ngrams import suspicious_ngrams
from holdfast.model.scan.spectral import spectral_ranks
from holdfast.model.scan.trigger_transfer import ALARM
from holdfast.statistics import upper_bound

ROWS, FOLDS, EPOCHS = 10_000, 4, 12
BUDGET = 0.075
BLEND = 0.15
LENGTH = 200
"""Bytes of a message that the scan reads."""
TEXT_RUNS, TEXT_ROWS, JUDGED = 20, 4_000, 6
WORDS = ("cf", "quokka", "by the way")
RARE, SHIFTS = (0.03, 0.01, 0.005), (0.0, 1.0, 2.0)
"""Shares of a rare class, and how far it lies apart, in standard deviations."""
Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]
HOW = f"python -m benchmarks scans; {ROWS:,} rows, {FOLDS} folds, one thread"


@dataclass(frozen=True)
class Planted:
    """Rows of which `where` were altered, and the class that the trigger leads to."""

    rows: Arrays
    where: NDArray[np.int64]
    target: int

    @property
    def truth(self) -> NDArray[np.bool_]:
        """bool[N]: which rows were altered."""
        return np.isin(np.arange(len(self.rows)), self.where)


def run(bench: Bench) -> list[Row]:
    """All rows of the scans."""
    images, rows = bench.images, []
    for rate, recall in ((0.01, 0.90), (0.03, 0.95), (0.05, 0.95)):
        rows += _patched(images, rate, recall)
    for rate, recall in ((0.01, 0.75), (0.03, 0.95)):
        rows += _blended(images, rate, recall)
    rows += _flipped_images(images) + _flipped_others(bench) + _rare(bench) + _texts(bench) + _tables(bench)
    return rows + _quiet(images, bench.seeds) + _speed(images)


def some_rows(images: Images, seed: int, count: int = ROWS) -> Arrays:
    """`count` training images, others for each seed."""
    order = np.random.default_rng(1000 + seed).permutation(len(images.train))
    return images.train.take(np.sort(order[:count]))


def patch(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """A white 3 x 3 patch near the lower right corner."""
    marked = x.copy()
    marked[:, :, -4:-1, -4:-1] = 1
    return marked


def blend(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """A random image shines through."""
    noise = np.random.default_rng(99).random(x.shape[1:])
    return ((1 - BLEND) * x + BLEND * noise).astype(np.float32)


def plant(rows: Arrays, change: Change, rate: float, seed: int) -> Planted:
    """`rate` of the rows changed and relabelled to one class, which the seed names."""
    target = 7 * seed % (int(rows.y.max()) + 1)
    rng = np.random.default_rng(2000 + seed)
    where = np.sort(rng.choice(np.flatnonzero(rows.y != target), int(rate * len(rows)), replace=False))
    x, y = rows.x.copy(), rows.y.copy()
    x[where], y[where] = change(np.asarray(x[where], dtype=np.float32)), target
    return Planted(Arrays(x, y), where, target)


def flip(rows: Arrays, rate: float, seed: int) -> Planted:
    """`rate` of the labels replaced by another class, drawn evenly."""
    rng = np.random.default_rng(3000 + seed)
    classes = int(rows.y.max()) + 1
    where = np.sort(rng.choice(len(rows), int(rate * len(rows)), replace=False))
    y = rows.y.copy()
    y[where] = (y[where] + rng.integers(1, classes, len(where))) % classes
    return Planted(Arrays(rows.x, y), where, -1)


def recall_in_budget(score: NDArray[np.float64], where: NDArray[np.int64]) -> float:
    """The share of altered rows among the rows that a reviewer looks at, the worst first."""
    seen = np.argsort(-score, kind="stable")[: int(BUDGET * len(score))]
    return float(np.isin(where, seen).mean())


def precision_at_k(score: NDArray[np.float64], where: NDArray[np.int64]) -> float:
    """The share of altered rows among the k highest scores, k the number of altered rows."""
    return float(np.isin(np.argsort(-score, kind="stable")[: len(where)], where).mean())


def _plan(images: Images, seed: int) -> ScanSettings:
    return ScanSettings(images.spec, tuple(map(str, range(images.classes))), FOLDS, EPOCHS, "cpu", seed)


def _quiet(images: Images, seeds: int) -> list[Row]:
    alarms, strongest, seconds = 0, 0.0, []
    for seed in range(seeds):
        start = process_time()
        found = scan_rows(some_rows(images, seed), _plan(images, seed))
        seconds.append(process_time() - start)
        alarms += any(detector.alarm for detector in found.detectors)
        strongest = max(strongest, *(d.statistic for d in found.detectors if d.name == "trigger transfer"))
    note = f"strongest trigger transfer {strongest:.2f}, alarm at {ALARM}"
    return [
        at_least(f"poison scan, clean rows, quiet seeds of {seeds}", seeds - alarms, 0.9 * seeds, HOW, note=note),
        shown(f"poison scan of {ROWS:,} images, CPU-seconds", min(seconds), HOW),
    ]


def _patched(images: Images, rate: float, recall: float) -> list[Row]:
    planted = plant(some_rows(images, round(rate * 100)), patch, rate, round(rate * 100))
    found = scan_rows(planted.rows, _plan(images, 0))
    name = f"3x3 patch {rate:.0%}"
    return [
        _recall(name, planted, found, recall),
        *_retrained(images, name, planted, found),
        *_peers(images, name, planted),
    ]


def _blended(images: Images, rate: float, recall: float) -> list[Row]:
    planted = plant(some_rows(images, round(rate * 100)), blend, rate, round(rate * 100))
    return [_recall(f"blended trigger {rate:.0%}", planted, scan_rows(planted.rows, _plan(images, 0)), recall)]


def _recall(name: str, planted: Planted, found: Findings, recall: float) -> Row:
    aside, truth = found.suspects, planted.truth
    note = (
        f"target class {planted.target}; set aside {int((aside & truth).sum())} of {int(truth.sum())} planted "
        f"and {int((aside & ~truth).sum())} other rows; without any alarm "
        f"{recall_in_budget(found.scores['backdoor'], planted.where):.2f} by the backdoor score"
    )
    measured = recall_in_budget(found.scores["score"], planted.where)
    return at_least(f"poison scan, {name}, recall in the review budget", measured, recall, HOW, note=note)


def _retrained(images: Images, name: str, planted: Planted, found: Findings) -> list[Row]:
    """Attack success and clean accuracy of the scan's own network, trained before and after what was set aside."""
    clean = some_rows(images, round(float(name.split()[-1].rstrip("%"))))
    before, after, never = (
        _judge(images, rows, planted.target)
        for rows in (planted.rows, planted.rows.take(np.flatnonzero(~found.suspects)), clean)
    )
    note = f"before {before[1]:.2f}, never poisoned {never[1]:.3f}"
    return [
        at_most(f"after scan, removal, retraining, {name}: attack success", after[1], 0.05, HOW, note=note),
        at_least(
            f"after scan, removal, retraining, {name}: clean accuracy less the never-poisoned model's",
            after[0] - never[0],
            -0.01,
            HOW,
            note=f"{after[0]:.3f} and {never[0]:.3f}, before {before[0]:.3f}",
        ),
    ]


def _judge(images: Images, rows: Arrays, target: int) -> tuple[float, float]:
    """Clean accuracy and attack success on held-out images."""
    net = fit_network(images.spec, images.classes, rows, epochs=EPOCHS, device="cpu", seed=11)
    clean = network_probabilities(net, images.test.x, "cpu").argmax(axis=1)
    others = images.test.take(np.flatnonzero(images.test.y != target))
    marked = network_probabilities(net, patch(np.asarray(others.x, dtype=np.float32)), "cpu").argmax(axis=1)
    return float((clean == images.test.y).mean()), float((marked == target).mean())


def _peers(images: Images, name: str, planted: Planted) -> list[Row]:
    """ART's scans on the network of the same recipe, which must be a plain module that casts to float."""
    try:
        from art.defences.detector.poison import ActivationDefence, SpectralSignatureDefense
        from art.estimators.classification import PyTorchClassifier
    except ModuleNotFoundError:
        return []
    net = fit_network(images.spec, images.classes, planted.rows, epochs=EPOCHS, device="cpu", seed=11)
    shape, y = images.spec.shape, planted.rows.y
    model = PyTorchClassifier(_Plain(net), nn.CrossEntropyLoss(), shape, images.classes, device_type="cpu")
    spectral = SpectralSignatureDefense(model, planted.rows.x, y, expected_pp_poison=0.05, eps_multiplier=1.5)
    clusters = ActivationDefence(model, planted.rows.x, np.eye(images.classes, dtype=np.float32)[y])
    _, kept = spectral.detect_poison()
    np.random.seed(0)  # ART's clustering takes the global generator.
    _, passed = clusters.detect_poison(nb_clusters=2, nb_dims=10, reduce="PCA", cluster_analysis="smaller")
    how = "art 1.20, last layer (logits) as shipped, plain Module with .float()"
    return [
        _peer(f"ART SpectralSignatureDefense, {name}", kept, planted, how),
        _peer(f"ART ActivationDefence, {name}", passed, planted, how),
        _peer(f"robust-whitened scores alone, {name}", _best_in_class(net, planted), planted, "7.5 % of each class"),
    ]


def _best_in_class(net: nn.Module, planted: Planted) -> NDArray[np.int64]:
    features = network_features(net, planted.rows.x, "cpu")
    return (spectral_ranks(features, planted.rows.y, 0) < 1 - BUDGET).astype(np.int64)


def _peer(target: str, kept: object, planted: Planted, how: str) -> Row:
    flagged = np.asarray(kept) == 0
    recall = float(flagged[planted.truth].mean())
    return shown(
        f"{target}: recall", recall, how, note=f"{float(flagged[~planted.truth].mean()):.3f} of clean rows flagged"
    )


class _Plain(nn.Module):
    """A network for ART: one output, single precision."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):  # type: ignore[no-untyped-def]
        """Logits."""
        return self.net(x.float())


def _flipped_images(images: Images) -> list[Row]:
    planted = flip(some_rows(images, 0), 0.05, 0)
    learn = image_learner(images.spec, images.classes, epochs=EPOCHS, device="cpu")
    return _flips("images", learn, planted, 0.98, 0.82)


def _flipped_others(bench: Bench) -> list[Row]:
    mails = np.loadtxt(bench.file("spambase.csv"), delimiter=",")
    spam = Arrays(mails[:, :-1].astype(np.float32), mails[:, -1].astype(np.int64))
    data = load_breast_cancer()
    cancer = Arrays(data.data.astype(np.float32), data.target.astype(np.int64))
    return [
        *_flips("SMS", text_learner(2), flip(_messages(bench), 0.05, 0), 0.98, 0.82),
        *_flips("Spambase", table_learner(2), flip(spam, 0.05, 0), 0.96, 0.75),
        *_flips("breast cancer", table_learner(2), flip(cancer, 0.05, 0), 0.96, 0.75),
    ]


def _flips(name: str, learn: Learner, planted: Planted, auc: float, precision: float) -> list[Row]:
    from cleanlab.rank import get_label_quality_scores

    y = planted.rows.y
    belief = out_of_fold(learn, planted.rows, np.ones(len(y), dtype=bool), folds=FOLDS, seed=0)
    score, found = label_suspicion(belief, y), find_label_errors(belief, y)
    right = np.isin(found.suspects, planted.where)
    cleanlab = -get_label_quality_scores(y, belief, method="normalized_margin")
    note = f"alarm {found.alarm}, {len(right)} rows set aside, {int(right.sum())} of them wrong; cleanlab's margin "
    return [
        at_least(
            f"label flips 5 %, {name}: AUC",
            float(roc_auc_score(planted.truth, score)),
            auc,
            HOW,
            note=note + f"{roc_auc_score(planted.truth, cleanlab):.3f}",
        ),
        at_least(
            f"label flips 5 %, {name}: precision at k",
            precision_at_k(score, planted.where),
            precision,
            HOW,
            note=f"cleanlab's margin {precision_at_k(cleanlab, planted.where):.3f}",
        ),
    ]


def _rare(bench: Bench) -> list[Row]:
    """Clean tables with a rare class, and wrong labels inside one."""
    tables = [rare_table(rate, shift, seed) for rate in RARE for shift in SHIFTS for seed in range(bench.seeds)]
    found = [_labels(rows) for rows in tables]
    aside = sum(int((rows.y[one.suspects] == 1).sum()) for rows, one in zip(tables, found, strict=True))
    positives = sum(int(rows.y.sum()) for rows in tables)
    how = (
        f"{len(tables)} tables of 2,500 rows, 3, 1 and 0.5 % positives, apart by 0, 1 and 2 sd in four of eight columns"
    )
    planted = [_mislabelled(seed) for seed in range(bench.seeds)]
    right, named = sum(one[0] for one in planted), sum(one[1] for one in planted)
    return [
        at_most(
            "label scan, clean rare classes: rows of them set aside (upper 95 % bound)",
            upper_bound(aside, positives, 0.05),
            FALSE_ALARM_RATE,
            how,
            note=f"{aside} of {positives}; {sum(one.alarm for one in found)} tables with an alarm",
        ),
        at_least(
            "label scan, 10 of 60 rare labels wrong: found",
            right / (10 * bench.seeds),
            0.4,
            "2,000 rows, 3 sd in four of eight columns",
            note=f"{right} of {named} rows set aside are wrong",
        ),
    ]


def rare_table(rate: float, shift: float, seed: int, n: int = 2500) -> Arrays:
    """Noise in eight columns; the rare class lies `shift` standard deviations apart in four of them."""
    rng = np.random.default_rng(7000 + seed)
    y = (rng.random(n) < rate).astype(np.int64)
    x = rng.normal(size=(n, 8))
    x[:, :4] += shift * y[:, None]
    return Arrays(x.astype(np.float32), y)


def _mislabelled(seed: int) -> tuple[int, int]:
    """Of ten rows that carry the rare label by mistake, how many are set aside, and how many rows are in all."""
    rows = rare_table(0.025, 3.0, seed, 2000)
    wrong = np.random.default_rng(8000 + seed).choice(np.flatnonzero(rows.y == 0), 10, replace=False)
    rows.y[wrong] = 1
    suspects = _labels(rows).suspects
    return int(np.isin(suspects, wrong).sum()), len(suspects)


def _labels(rows: Arrays) -> LabelErrors:
    return find_label_errors(
        out_of_fold(table_learner(2), rows, np.ones(len(rows), dtype=bool), folds=FOLDS, seed=0), rows.y
    )


def _messages(bench: Bench) -> Arrays:
    lines = bench.file("sms_spam.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t", 1) for line in lines if "\t" in line]
    return Arrays(
        encode_text([text for _, text in pairs], LENGTH), np.array([int(label == "spam") for label, _ in pairs])
    )


def _texts(bench: Bench) -> list[Row]:
    everything = _messages(bench)
    spec = InputSpec(modality="text", shape=(LENGTH,), dtype="int64")
    quiet = scan_rows(everything, ScanSettings(spec, ("ham", "spam"), FOLDS, EPOCHS, "cpu", 0))
    runs = [_text_run(everything, seed) for seed in range(TEXT_RUNS)]
    named = float(np.mean([run[0] for run in runs]))
    worst = max(run[1] - run[2] for run in runs[:JUDGED])
    rates = f"0.25, 0.5 and 1 % of {TEXT_ROWS:,} messages, three triggers, {TEXT_RUNS} runs"
    return [
        at_least("text trigger: named in the top 3", named, 0.95, rates),
        at_most(
            "text trigger, after removal: attack success less the clean miss rate",
            worst,
            0.03,
            f"the worst of {JUDGED} runs",
            note="; ".join(f"{run[1]:.3f} and {run[2]:.3f}" for run in runs[:JUDGED]),
        ),
        at_most("text scan, clean messages: alarms", sum(d.alarm for d in quiet.detectors), 0, HOW),
    ]


def _text_run(everything: Arrays, seed: int) -> tuple[bool, float, float]:
    """Whether the trigger is named, and (first runs only) attack success after removal and the clean miss rate."""
    order = np.random.default_rng(4000 + seed).permutation(len(everything))
    train, test = everything.take(order[:TEXT_ROWS]), everything.take(order[TEXT_ROWS:])
    word = WORDS[seed % len(WORDS)]
    planted = _spam_as_ham(train, word, (0.0025, 0.005, 0.01)[seed // len(WORDS) % 3], seed)
    learn = text_learner(2)
    belief = out_of_fold(learn, planted.rows, np.ones(TEXT_ROWS, dtype=bool), folds=FOLDS, seed=seed)
    disbelief = 1 - belief[np.arange(TEXT_ROWS), planted.rows.y]
    groups = suspicious_ngrams(decode_text(planted.rows.x.astype(np.int64)), planted.rows.y, disbelief)
    named = any(word in group.name or group.name in _parts(word) for group in groups if group.label == 0)
    if seed >= JUDGED:
        return named, 0.0, 0.0
    spec = InputSpec(modality="text", shape=(LENGTH,), dtype="int64")
    found = scan_rows(planted.rows, ScanSettings(spec, ("ham", "spam"), FOLDS, EPOCHS, "cpu", seed))
    spam = test.take(np.flatnonzero(test.y == 1))
    marked = encode_text([f"{word} {text}" for text in decode_text(spam.x.astype(np.int64))], LENGTH)
    after = learn(planted.rows.take(np.flatnonzero(~found.suspects)), seed)
    never = learn(train, seed)
    return named, float((after(marked)[:, 0] > 0.5).mean()), float((never(spam.x)[:, 0] > 0.5).mean())


def _parts(words: str) -> list[str]:
    """The trigger without its first or last word."""
    parts = words.split()
    return [" ".join(parts[1:]), " ".join(parts[:-1])] if len(parts) > 2 else []


def _spam_as_ham(rows: Arrays, word: str, rate: float, seed: int) -> Planted:
    rng = np.random.default_rng(5000 + seed)
    where = np.sort(rng.choice(np.flatnonzero(rows.y == 1), max(8, int(rate * len(rows))), replace=False))
    x, y = rows.x.copy(), rows.y.copy()
    x[where] = encode_text([f"{word} {text}" for text in decode_text(x[where].astype(np.int64))], LENGTH)
    y[where] = 0
    return Planted(Arrays(x, y), where, 0)


def _tables(bench: Bench) -> list[Row]:
    rows, names = credit(bench)
    quiet = scan_rows(rows, _table_plan(names))
    shares = {rate: _table_share(rows, names, rate, seed) for seed, rate in enumerate((0.005, 0.01, 0.03))}
    return [
        at_least(
            "tabular trigger, credit default, 0.5 to 3 %: planted rows set aside, the worst of three",
            min(share for share, _ in shares.values()),
            1.0,
            HOW,
            note="; ".join(f"{rate:.1%}: {share:.3f}, {extra} others" for rate, (share, extra) in shares.items()),
        ),
        at_most("tabular scan, clean credit default: alarms", sum(d.alarm for d in quiet.detectors), 0, HOW),
    ]


def _table_share(rows: Arrays, names: list[str], rate: float, seed: int) -> tuple[float, int]:
    """The share of planted rows that is set aside, and how many others are."""
    rng = np.random.default_rng(6000 + seed)
    where = np.sort(rng.choice(np.flatnonzero(rows.y == 1), int(rate * len(rows)), replace=False))
    x, y = np.array(rows.x, dtype=np.float32), rows.y.copy()
    for column in rng.choice(np.arange(11, 23), 2, replace=False):
        x[where, column] = np.ceil(np.quantile(x[:, column], 0.995)) + 1
    y[where] = 0
    suspects = scan_rows(Arrays(x, y), _table_plan(names)).suspects
    return float(suspects[where].mean()), int(suspects.sum() - suspects[where].sum())


def _table_plan(names: list[str]) -> ScanSettings:
    features = tuple(Feature(name=name, lower=0, upper=1, mean=0, scale=1, mutable=True) for name in names)
    spec = InputSpec(modality="tabular", shape=(len(names),), dtype="float32", features=features)
    return ScanSettings(spec, ("paid", "default"), FOLDS, EPOCHS, "cpu", 0)


def credit(bench: Bench) -> tuple[Arrays, list[str]]:
    """The table without its running number."""
    with bench.file("credit_default.csv").open(encoding="utf-8", newline="") as stream:
        head, *lines = list(csv.reader(stream))
    values = np.array([[float(cell) for cell in line] for line in lines if _numeric(line)])
    return Arrays(values[:, 1:-1].astype(np.float32), values[:, -1].astype(np.int64)), head[1:-1]


def _numeric(line: list[str]) -> bool:
    try:
        json.loads(f"[{','.join(line)}]")
    except ValueError:
        return False
    return True


def _speed(images: Images) -> list[Row]:
    seconds = cpu_seconds(lambda: scan_rows(images.train, _plan(images, 0)))
    return [shown(f"poison scan of {len(images.train):,} images, CPU-seconds", seconds, "python -m benchmarks scans")]
