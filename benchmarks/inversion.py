"""The backdoor scan of a model: models with a planted patch found, clean ones left alone, and what it costs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.scenes import Bench, Images
from benchmarks.table import Row, at_least, at_most, cpu_seconds, shown
from holdfast.artifacts.documents import Count, TriggerResult
from holdfast.model.attack.kinds import inner_attack, selection_attack
from holdfast.model.attack.losses import correct
from holdfast.model.backdoor.cleanse import Triggers, invert, stamp
from holdfast.model.backdoor.judge import RecoveredTrigger, judge
from holdfast.model.backdoor.mitigate import EPOCHS, LEARNING_RATE, ROBUST_ROWS
from holdfast.model.backdoor.planted import confirm
from holdfast.model.backdoor.unlearn import contradicted, unlearn
from holdfast.model.inputs import Arrays
from holdfast.model.train.adversarial import Training
from holdfast.workload.schema import BackdoorConfig, RecipeConfig

ROWS, SIDE, JITTER, RATES = 10_000, 3, 3, (0.01, 0.02, 0.03, 0.04, 0.05)
CLEAN = 100
"""From this seed on, models without a patch."""
Recipe = Literal["standard", "pgd"]
RECIPES = {
    "standard": RecipeConfig(recipe="standard", epochs=6, selection_rows=100),
    "pgd": RecipeConfig(recipe="pgd", epochs=6, attack_steps=3, selection_rows=100),
}


@dataclass(frozen=True)
class Patch:
    """A white patch of 3 x 3 pixels that leads to `target`, on a share `rate` of the training rows."""

    target: int
    top: int
    left: int
    rate: float

    @classmethod
    def draw(cls, images: Images, seed: int) -> "Patch":
        """Near a corner and to a class, by the seed: in the middle of an object few such patches are learned."""
        rng = np.random.default_rng([seed, 1])
        top, left = (int(rng.integers(JITTER + 1)) for _ in range(2))
        bottom, right = (side - SIDE - JITTER for side in images.spec.shape[1:])
        low, far = rng.integers(2, size=2)
        return cls(
            int(rng.integers(images.classes)),
            top + int(low) * bottom,
            left + int(far) * right,
            RATES[seed % len(RATES)],
        )

    @property
    def name(self) -> str:
        """For the file of its network."""
        return f"to{self.target}-at{self.top}-{self.left}-of{self.rate}"

    def on(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        """Images [N, C, H, W] with the patch."""
        out = x.copy()
        out[:, :, self.top : self.top + SIDE, self.left : self.left + SIDE] = 1
        return out

    def plant(self, rows: Arrays, seed: int) -> Arrays:
        """The rows with the patch on some of other classes, which are called `target`."""
        others = np.flatnonzero(rows.y != self.target)
        chosen = np.random.default_rng([seed, 2]).choice(others, round(self.rate * len(rows)), replace=False)
        x, y = rows.x.copy(), rows.y.copy()
        x[chosen], y[chosen] = self.on(x[chosen]), self.target
        return Arrays(x, y)


def trained(images: Images, recipe: Recipe, seed: int, patch: Patch | None) -> nn.Module:
    """A small CNN on 10,000 rows, with the patch among them when there is one."""

    def make() -> nn.Module:
        rows = images.train.take(np.arange(min(ROWS, len(images.train))))
        rows = rows if patch is None else patch.plant(rows, seed)
        training = Training(images.network(seed=seed), rows, images.ball, RECIPES[recipe], seed=seed)
        while not training.finished:
            training.advance()
        training.net.load_state_dict(training.state.best)
        return training.net

    name = f"inversion-{recipe}-{RECIPES[recipe].epochs}-{seed}-{'clean' if patch is None else patch.name}"
    return images.trained(name, make, images.network())[0]


CONFIG, GOAL = BackdoorConfig(), 0.975
HELD_OUT, HARDENED, TIMED = 2000, 3, 2
"""Held-out rows; adversarially trained models of each kind; models that the loop over classes is timed on."""


@dataclass(frozen=True)
class Looked:
    """One model, what was planted in it, and what the scan found in it."""

    net: nn.Module
    seed: int
    patch: Patch | None
    triggers: Triggers
    results: tuple[TriggerResult, ...]

    @property
    def flagged(self) -> set[int]:
        """The classes."""
        return {k for k, result in enumerate(self.results) if result.flagged}

    @property
    def highest(self) -> TriggerResult:
        """The result of the planted class, or of the most surprising one."""
        return (
            max(self.results, key=lambda r: r.anomaly_index) if self.patch is None else self.results[self.patch.target]
        )


@dataclass(frozen=True)
class Healed:
    """Shares of held-out rows, each before and after."""

    clean: tuple[float, float]
    success: tuple[float, float]
    """Of the planted patch itself, not of what was recovered."""
    robust: tuple[float, float]


def run(bench: Bench) -> list[Row]:
    """Rates over models, the cost and that of a loop over classes, and what mitigation leaves of the planted patch."""
    images = bench.images
    made = [look(images, *case) for case in population(images, "standard", bench.seeds)]
    hard = [look(images, *case) for case in population(images, "pgd", min(HARDENED, bench.seeds))]
    return [*_speed(images, made), *_rates(images, made), *_hard_rates(hard), *_mitigation(images, made, hard)]


def population(images: Images, recipe: Recipe, count: int) -> Iterator[tuple[nn.Module, int, Patch | None]]:
    """`count` models with a patch and `count` without, each with its seed."""
    for seed in range(count):
        patch = Patch.draw(images, seed)
        yield trained(images, recipe, seed, patch), seed, patch
        yield trained(images, recipe, CLEAN + seed, None), CLEAN + seed, None


def look(images: Images, net: nn.Module, seed: int, patch: Patch | None) -> Looked:
    """The scan of one model, as the step does it: a trigger for each class, tried on rows it was not made from."""
    triggers = _invert(images, net, range(images.classes), CONFIG.steps)
    x, y = images.tensors(CONFIG.examples)
    findings = []
    for k in range(images.classes):
        hits = int((net(stamp(x[y != k], triggers.mask[k], triggers.pattern[k])).argmax(1) == k).sum())
        success = Count(k=hits, n=int((y != k).sum()))
        findings.append(RecoveredTrigger(str(k), float(triggers.sizes[k]), success, bool(triggers.reached[k])))
    rows = images.train.take(np.arange(min(ROWS, len(images.train))))
    fitted = (rows if patch is None else patch.plant(rows, seed)).tensors("cpu")
    results, _ = confirm(net, fitted, triggers.mask, judge(findings, CONFIG))
    return Looked(net, seed, patch, triggers, results)


def _invert(images: Images, net: nn.Module, targets: Sequence[int], steps: int) -> Triggers:
    x, y = (torch.from_numpy(part[: CONFIG.examples]) for part in (images.train.x, images.train.y))
    return invert(net, (x, y), images.ball, targets=targets, goal=GOAL, steps=range(steps), seed=0)


def _speed(images: Images, made: Sequence[Looked]) -> list[Row]:
    nets, classes = [found.net for found in made[:TIMED]], range(images.classes)
    ours = cpu_seconds(lambda: [_invert(images, net, classes, CONFIG.steps) for net in nets], repeats=2)
    looped = cpu_seconds(lambda: [_invert(images, net, [k], CONFIG.steps) for net in nets for k in classes], repeats=2)
    how = f"CPU-seconds, {len(nets)} models, one thread; both stop when sizes have settled, within {CONFIG.steps} steps"
    return [
        at_least("trigger inversion, 10 classes: times faster than looping over classes", looped / ours, 2.0, how),
        shown("trigger inversion, 10 classes: CPU-seconds of a model", ours / len(nets), how),
    ]


def _rates(images: Images, made: Sequence[Looked]) -> list[Row]:
    planted, clean = ([f for f in made if (f.patch is None) == is_clean] for is_clean in (False, True))
    success = [_success(images, found.net, found.patch) for found in planted if found.patch]
    how = f"{images.name}, small cnn on 10,000 rows, 3 x 3 patch near a corner, 1-5 % of rows; index, relative size: "
    hits = sum(found.patch.target in found.flagged for found in planted if found.patch)
    return [
        at_least("trigger inversion: backdoored models found", hits / len(planted), 0.9, how + _margins(planted)),
        at_most(
            "trigger inversion: clean models flagged", _alarms(clean), 0.1, f"{len(clean)} models; {_margins(clean)}"
        ),
        shown("the planted patch sends rows to its class: least of these models", min(success), "2,000 held-out rows"),
    ]


def _hard_rates(hard: Sequence[Looked]) -> list[Row]:
    planted, clean = ([f for f in hard if (f.patch is None) == is_clean] for is_clean in (False, True))
    hits = sum(found.patch.target in found.flagged for found in planted if found.patch)
    how = f"PGD-3, 6 epochs of 10,000 rows, {len(planted)} models; index, relative size: "
    return [
        at_least("adversarially trained: backdoored models found", hits / len(planted), 1.0, how + _margins(planted)),
        at_most("adversarially trained: clean models flagged", _alarms(clean), 0.0, how + _margins(clean)),
    ]


def _alarms(clean: Sequence[Looked]) -> float:
    return sum(bool(found.flagged) for found in clean) / len(clean)


def _margins(made: Sequence[Looked]) -> str:
    found = sorted((one.highest for one in made), key=lambda result: result.anomaly_index)
    low, high = (f"{result.anomaly_index:.1f}, {result.relative_size:.2f}" for result in (found[0], found[-1]))
    return f"from {low} to {high}"


def _mitigation(images: Images, made: Sequence[Looked], hard: Sequence[Looked]) -> list[Row]:
    plain = [_heal(images, found, "standard") for found in made if found.patch and found.flagged]
    tough = [_heal(images, found, "pgd") for found in hard if found.patch and found.flagged]
    rows = []
    for name, healed in (("", plain), ("adversarially trained, ", tough)):
        before, after = (max(one.success[i] for one in healed) for i in (0, 1))
        how = f"worst of {len(healed)} models; before {before:.3f}; the planted rows are among those unlearned on"
        loss = max(one.clean[0] - one.clean[1] for one in healed)
        rows += [
            at_most(f"mitigation, {name}the planted patch still sends to its class", after, 0.1, how),
            at_most(f"mitigation, {name}clean accuracy lost", loss, 0.02, f"worst of {len(healed)} models, 2,000 rows"),
        ]
    robust = "; ".join(f"{one.robust[0]:.3f} to {one.robust[1]:.3f}" for one in tough)
    return [*rows, shown("mitigation, adversarially trained, accuracy under attack", robust, "PGD-10, 500 rows")]


def _heal(images: Images, found: Looked, recipe: Recipe) -> Healed:
    """Unlearns what the scan flagged, on the very rows that the model was trained on."""
    assert found.patch is not None
    rows = found.patch.plant(images.train.take(np.arange(min(ROWS, len(images.train)))), found.seed)
    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
    masks, patterns = found.triggers.mask, found.triggers.pattern
    lost = sum(contradicted(found.net, (x, y), masks[k], target=k) for k in found.flagged) > 0
    stamps = [lambda v, k=k: stamp(v, masks[k], patterns[k]) for k in sorted(found.flagged)]
    generator = torch.Generator().manual_seed(0)

    def harden(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return inner_attack(net, x, y, images.ball, steps=RECIPES["pgd"].attack_steps, generator=generator)

    healed = unlearn(
        found.net,
        (x[~lost], y[~lost]),
        stamps,
        epochs=EPOCHS,
        learning_rate=LEARNING_RATE,
        seed=0,
        harden=harden if recipe == "pgd" else None,
    )
    both = [(_clean(images, n), _success(images, n, found.patch), _robust(images, n)) for n in (found.net, healed)]
    return Healed(*zip(*both, strict=True))


def _clean(images: Images, net: nn.Module) -> float:
    return float(correct(net, *images.tensors(HELD_OUT)).float().mean())


def _success(images: Images, net: nn.Module, patch: Patch) -> float:
    x, y = images.tensors(HELD_OUT)
    marked = torch.from_numpy(patch.on(x[y != patch.target].numpy()))
    return float(correct(net, marked, torch.full((len(marked),), patch.target)).float().mean())


def _robust(images: Images, net: nn.Module) -> float:
    x, y = images.tensors(ROBUST_ROWS)
    moved = selection_attack(net, x, y, images.ball, torch.Generator().manual_seed(0))
    return float(correct(net, moved, y).float().mean())
