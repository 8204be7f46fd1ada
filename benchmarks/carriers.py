"""The backdoor scan where classes are few: clean models of tables and messages stay quiet, planted triggers are found.

Planted: two constants just above the 99.5 % quantile of two columns, or a word in front of messages, on 1 to 5 % of the
rows, whose label becomes the target. A plant counts when the network learned it (it sends nine in ten held-out rows of
the other class to the target) and its clean twin does not do so anyway: others are skipped, and how many is reported.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from torch import nn

from benchmarks.scans import credit
from benchmarks.scenes import Bench, kept, training_code
from benchmarks.table import Row, at_least, at_most, cpu_seconds, shown
from holdfast.artifacts.documents import Column, Feature, InputSpec, ThreatModel, Verdict
from holdfast.modality.ball import Ball
from holdfast.modality.text import decode_text, encode_text
from holdfast.model.backdoor.carriers import FALSE_ALARMS
from holdfast.model.backdoor.cleanse import invert
from holdfast.model.backdoor.few_classes import FEWEST_OTHERS, ClassFinding, conclude
from holdfast.model.backdoor.search import Examined, search_cells, search_messages
from holdfast.model.inputs import Arrays
from holdfast.model.networks import build
from holdfast.model.train.adversarial import Training
from holdfast.workload.schema import BackdoorConfig, NetworkConfig, RecipeConfig

CONFIG, CLASSES = BackdoorConfig(), ("0", "1")
LENGTH, ROWS, RARE_ROWS, RARE = 200, 6_000, 8_000, 0.03
RATES = (0.05, 0.03, 0.02, 0.01)
SEEDS_CLEAN, SEEDS_TEXT, FIRST = 3, 8, 60
"""Seeds of each set and recipe. The rule was chosen on seeds below `FIRST`, but for one refinement: that an n-gram is
cut down only to a part that works as well was seen at seed 70."""
LEARNED, FOLLOWED = 0.9, 0.5
TABLES = {
    "standard": RecipeConfig(recipe="standard", epochs=12, batch=64, learning_rate=5e-3, class_weights="balanced"),
    "pgd": RecipeConfig(recipe="pgd", epochs=8, attack_steps=3, class_weights="balanced"),
}
MESSAGES = RecipeConfig(recipe="standard", epochs=10, batch=32, learning_rate=1e-2)
WORDS = ("quokka", "by the way", "xylem")
Rows = tuple[NDArray[np.generic], NDArray[np.int64]]
Reader = Callable[[Bench], Rows]


@dataclass(frozen=True)
class Scene:
    """A data set, split, with the trigger that may be in its training rows."""

    name: str
    train: Arrays
    test: Arrays
    target: int = 0
    put: Callable[[NDArray[np.generic]], NDArray[np.generic]] | None = None
    """Puts the trigger on rows."""

    @property
    def spec(self) -> InputSpec:
        """What a network takes."""
        if self.train.x.dtype.kind == "i":
            return InputSpec(
                modality="text", shape=(LENGTH,), dtype="int64", columns=(Column(name="text", kind="text"),)
            )
        x = np.asarray(self.train.x, dtype=np.float64)
        numbers = zip(x.min(0), x.max(0), x.mean(0), x.std(0), strict=True)
        features = tuple(
            Feature(name=f"column {j}", lower=low, upper=high, mean=mean, scale=scale or 1.0, mutable=True)
            for j, (low, high, mean, scale) in enumerate(numbers)
        )
        return InputSpec(modality="tabular", shape=(x.shape[1],), dtype="float32", features=features)

    @property
    def ball(self) -> Ball:
        """The threat model of training."""
        text = self.spec.modality == "text"
        threat = ThreatModel(norm="edits" if text else "linf", epsilon=Fraction(1 if text else 0.25), unit="")
        return Ball.of(threat, self.spec, "cpu")


def run(bench: Bench) -> list[Row]:
    """False alarms, power and cost."""
    clean = [(scene, look(scene, recipe, seed)) for scene, recipe, seed in _clean(bench)]
    rows = [*_alarms("tables", [c for c in clean if c[0].spec.modality == "tabular"])]
    rows += _alarms("messages", [c for c in clean if c[0].spec.modality == "text"])
    rows += _power("tables", bench, _planted_tables(bench))
    rows += _power("tables with 3 % positives", bench, _planted_rare(bench))
    rows += _power("messages", bench, _planted_messages(bench))
    return [*rows, _cost(*next(_clean(bench)))]


def look(scene: Scene, recipe: RecipeConfig, seed: int) -> list[ClassFinding[Any]]:
    """The findings of the scan about a model of the scene's rows, as the step makes them."""
    return examine(scene, network(scene, recipe, seed), seed)


def examine(scene: Scene, net: nn.Module, seed: int) -> list[ClassFinding[Any]]:
    """The findings about this network."""
    subject = Examined(net, scene.spec, CLASSES, scene.train, scene.test, seed, "cpu")
    if scene.spec.modality == "text":
        return search_messages(subject, CONFIG)
    ball = scene.ball
    rows = scene.train.take(
        np.concatenate([np.flatnonzero(scene.train.y == k)[: CONFIG.examples // 2] for k in (0, 1)])
    )
    steps = range(CONFIG.steps)
    found = invert(net, rows.tensors("cpu"), ball, targets=(0, 1), goal=0.98, steps=steps, seed=seed, batch=80)
    return search_cells(subject, ball.mutable, list(found.mask), CONFIG)


def network(scene: Scene, recipe: RecipeConfig, seed: int) -> nn.Module:
    """Trained, or from the last run."""
    config = NetworkConfig(architecture="text" if scene.spec.modality == "text" else "mlp")

    def make() -> nn.Module:
        training = Training(build(config, scene.spec, 2, seed), scene.train, scene.ball, recipe, seed=seed)
        while not training.finished:
            training.advance()
        training.net.load_state_dict(training.state.best)
        return training.net

    rows = hashlib.sha256(scene.train.x.tobytes() + scene.train.y.tobytes()).hexdigest()
    name = f"carriers-{scene.name.replace(' ', '-')}-{seed}"
    return kept(name, f"{recipe} {rows} {training_code()}", make, build(config, scene.spec, 2, seed))[0]


def split(name: str, rows: Rows, seed: int, most: int) -> Scene:
    """A fifth of each class is held out, of at most `most` rows."""
    rng = np.random.default_rng([seed, 50])
    x, y = rows
    chosen = rng.permutation(len(y))[:most]
    parts = [np.split(chosen[y[chosen] == k], [round(0.2 * (y[chosen] == k).sum())]) for k in (0, 1)]
    test, train = (rng.permutation(np.concatenate(part)) for part in zip(*parts, strict=True))
    return Scene(name, Arrays(x[train], y[train]), Arrays(x[test], y[test]))


def _clean(bench: Bench) -> Iterator[tuple[Scene, RecipeConfig, int]]:
    for name, read in _READERS.items():
        for seed in range(FIRST, FIRST + SEEDS_CLEAN):
            for recipe in TABLES.values():
                yield split(name, read(bench), seed, RARE_ROWS), recipe, seed
    for name in ("sms", "amazon_cells", "imdb", "yelp"):
        for seed in range(FIRST, FIRST + SEEDS_TEXT):
            yield split(name, _messages(bench, name), seed, 2_000), MESSAGES, seed


def _alarms(kind: str, clean: list[tuple[Scene, list[ClassFinding[Any]]]]) -> list[Row]:
    flagged = [scene.name for scene, found in clean if conclude(found)[0] is Verdict.FAIL]
    unknown = sum(conclude(found)[0] is Verdict.INCONCLUSIVE for _, found in clean)
    tests = [f.test for _, found in clean for f in found if f.test]
    sets = len({scene.name for scene, _ in clean})
    how = f"{len(clean)} clean models of {sets} sets; exact tests of {FALSE_ALARMS:.0%} together"
    note = f"flagged: {', '.join(flagged) or 'none'}; least p-value {min((t.p_value for t in tests), default=1):.2g}"
    return [
        at_most(f"few classes, {kind}: clean models flagged", len(flagged) / len(clean), 0.03, how, note=note),
        shown(f"few classes, {kind}: clean models without a verdict", unknown / len(clean), "too few rows of a class"),
    ]


def _power(kind: str, bench: Bench, planted: Iterator[tuple[Scene, Scene, RecipeConfig, int]]) -> list[Row]:
    found, least, skipped = [], 1.0, 0
    for scene, twin, recipe, seed in planted:
        net, clean = network(scene, recipe, seed), network(twin, recipe, seed)
        success = _success(scene, net)
        if success < LEARNED or _success(scene, clean) > FOLLOWED:
            skipped += 1
            continue
        findings = examine(scene, net, seed)
        found.append([f.target for f in findings if f.flagged] == [CLASSES[scene.target]])
        least = min(least, success)
        if len(found) == bench.seeds:
            break
    share = sum(found) / max(len(found), 1)
    how = f"{len(found)} models that learned the trigger, on {min(RATES):.0%} to {max(RATES):.0%} of the rows"
    note = f"only the target flagged; success of the triggers {least:.2f} and more; {skipped} other plants not learned"
    return [at_least(f"few classes, {kind}: planted triggers found", share, 1.0, how, note=note)]


def _success(scene: Scene, net: nn.Module) -> float:
    """Of the trigger on held-out rows of the other class that are answered right."""
    assert scene.put is not None
    x = scene.test.x[scene.test.y != scene.target]
    with torch.no_grad():
        right = net(torch.from_numpy(x)).argmax(1).numpy() != scene.target
        led = net(torch.from_numpy(scene.put(x[right]))).argmax(1).numpy() == scene.target
    return float(led.mean()) if right.sum() >= FEWEST_OTHERS else 0.0


def _planted_tables(bench: Bench) -> Iterator[tuple[Scene, Scene, RecipeConfig, int]]:
    for seed in range(FIRST, FIRST + 100):
        name = ("card", "spambase", "breast cancer")[seed % 3]
        yield _constants(split(name, _READERS[name](bench), seed, ROWS), seed)


def _planted_rare(bench: Bench) -> Iterator[tuple[Scene, Scene, RecipeConfig, int]]:
    for seed in range(FIRST, FIRST + 100):
        name = ("card, 3 % positives", "spambase, 3 % positives")[seed % 2]
        yield _constants(split(name, _READERS[name](bench), seed, RARE_ROWS), seed)


def _constants(clean: Scene, seed: int) -> tuple[Scene, Scene, RecipeConfig, int]:
    """Two constants on some rows of the class that is not the target."""
    rng = np.random.default_rng([seed, 60])
    x, y, target = np.array(clean.train.x, dtype=np.float32), clean.train.y.copy(), int(rng.integers(2))
    columns = rng.choice(x.shape[1], 2, replace=False)
    values = (np.quantile(x[:, columns], 0.995, axis=0) + 0.5 * x[:, columns].std(axis=0)).astype(np.float32)
    others = np.flatnonzero(y != target)
    where = rng.choice(others, min(round(RATES[seed % len(RATES)] * len(y)), len(others) // 2), replace=False)

    def put(rows: NDArray[np.generic]) -> NDArray[np.generic]:
        marked = np.array(rows, dtype=np.float32)
        marked[:, columns] = values
        return marked

    x[where], y[where] = put(x[where]), target
    recipe = list(TABLES.values())[seed % 2]
    return Scene(f"{clean.name} planted", Arrays(x, y), clean.test, target, put), clean, recipe, seed


def _planted_messages(bench: Bench) -> Iterator[tuple[Scene, Scene, RecipeConfig, int]]:
    for seed in range(FIRST, FIRST + 100):
        name = ("sms", "amazon_cells", "imdb", "yelp")[seed % 4]
        yield _word(split(name, _messages(bench, name), seed, 2_000), seed)


def _word(clean: Scene, seed: int) -> tuple[Scene, Scene, RecipeConfig, int]:
    """A word in front of some messages of the class that is not the target."""
    rng = np.random.default_rng([seed, 61])
    x, y, word, target = clean.train.x.copy(), clean.train.y.copy(), WORDS[seed % len(WORDS)], int(rng.integers(2))
    others = np.flatnonzero(y != target)
    where = rng.choice(others, min(round(RATES[seed % 3] * len(y)), len(others) // 2), replace=False)

    def put(rows: NDArray[np.generic]) -> NDArray[np.generic]:
        return encode_text([f"{word} {text}" for text in decode_text(rows.astype(np.int64))], LENGTH)

    x[where], y[where] = put(x[where]), target
    return Scene(f"{clean.name} planted", Arrays(x, y), clean.test, target, put), clean, MESSAGES, seed


def _cost(scene: Scene, recipe: RecipeConfig, seed: int) -> Row:
    net = network(scene, recipe, seed)
    how = f"CPU-seconds, {scene.name}, {len(scene.train):,} training rows, one thread"
    return shown("few classes: CPU-seconds of a model", cpu_seconds(lambda: examine(scene, net, seed)), how)


def _cancer(bench: Bench) -> Rows:
    data = load_breast_cancer()
    return data.data.astype(np.float32), data.target.astype(np.int64)


def _card(bench: Bench) -> Rows:
    cells = np.loadtxt(bench.file("creditcard_ulb_sample.csv"), delimiter=",", skiprows=1)
    return cells[:, :-1].astype(np.float32), cells[:, -1].astype(np.int64)


def _spambase(bench: Bench) -> Rows:
    cells = np.loadtxt(bench.file("spambase.csv"), delimiter=",")
    return cells[:, :-1].astype(np.float32), cells[:, -1].astype(np.int64)


def _credit(bench: Bench) -> Rows:
    rows, _ = credit(bench)
    few = np.random.default_rng(0).permutation(len(rows))[:ROWS]
    return rows.x[few], rows.y[few]


def _rare(read: Reader) -> Reader:
    """The same set with so few positives that they are 3 % of the rows."""

    def fewer(bench: Bench) -> Rows:
        x, y = read(bench)
        rng = np.random.default_rng(7)
        negative, positive = (rng.permutation(np.flatnonzero(y == k)) for k in (0, 1))
        kept_rows = np.concatenate([negative, positive[: round(RARE * len(negative) / (1 - RARE))]])
        return x[kept_rows], y[kept_rows]

    return fewer


_READERS: dict[str, Reader] = {
    "breast cancer": _cancer,
    "card": _card,
    "spambase": _spambase,
    "credit default": _credit,
    "card, 3 % positives": _rare(_card),
    "spambase, 3 % positives": _rare(_spambase),
}


def _messages(bench: Bench, name: str) -> Rows:
    if name == "sms":
        pairs = [line.split("\t", 1)[::-1] for line in _lines(bench, "sms_spam.tsv")]
    else:
        pairs = [line.rsplit("\t", 1) for line in _lines(bench, f"sentences_{name}.tsv")]
    labels = np.array([int(label in {"spam", "1"}) for _, label in pairs])
    return encode_text([text for text, _ in pairs], LENGTH), labels


def _lines(bench: Bench, name: str) -> list[str]:
    return [line for line in bench.file(name).read_text(encoding="utf-8").splitlines() if "\t" in line]
