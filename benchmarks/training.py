"""Hardening: accuracy without attack and under the release tier, and what it costs."""

import hashlib
from fractions import Fraction

import numpy as np
import torch
from torch import nn

from benchmarks.rendered import digits
from benchmarks.scenes import Bench, Images
from benchmarks.table import Row, at_least, at_most, shown
from holdfast.model.attack.kinds import plans
from holdfast.model.attack.suite import correct_in_batches, measure
from holdfast.model.train.adversarial import Training
from holdfast.workload.schema import RecipeConfig

FULL = RecipeConfig(recipe="pgd", epochs=15, batch=128, learning_rate=0.004, attack_steps=7, average=0.999)
FAST = RecipeConfig(recipe="fgsm-rs", epochs=12, batch=128, learning_rate=0.004, fast_steps=3, average=0.999)
EXAMPLES = 1000
RENDERED, RENDERED_TEST, RENDERED_EPSILON = 60_000, 2000, Fraction(3, 10)
"""A second image set, at a budget where single steps hide their gradients."""
COLLAPSE_ROWS, COLLAPSE_EPOCHS = 10_000, 10


def hardened(images: Images) -> tuple[nn.Module, float]:
    """The 167-thousand-parameter network after the full recipe, and the CPU-seconds that it took."""
    return images.trained(_key(FULL), lambda: _fit(images, FULL)[0], images.network())


def run(bench: Bench) -> list[Row]:
    """The full recipe, the fast one, whether the fast one collapses, and what it does on other images."""
    images = bench.images
    return [*_full(images), *_fast(images), *_collapses(images, bench.seeds), *_rendered()]


def _full(images: Images) -> list[Row]:
    net, seconds = hardened(images)
    clean, robust = judged(images, net)
    what = f"adversarial training, {images.name} eps {images.epsilon}, full set, 167k-parameter CNN"
    how = f"PGD-{FULL.attack_steps}, {_how(images, FULL)}"
    return [
        at_least(f"{what}, clean", clean, 0.82, how),
        at_least(f"{what}, AutoAttack-equivalent", robust, 0.68, how),
        at_most(f"{what}, minutes of one core", seconds / 60, 15.0, how),
    ]


def _fast(images: Images) -> list[Row]:
    net, seconds = _trained(images, FAST)
    clean, robust = judged(images, net)
    what = "fast training (fgsm-rs)"
    how = f"fgsm-rs, {_how(images, FAST)}"
    return [
        shown(f"{what}, clean", clean, how),
        at_least(f"{what}, AutoAttack-equivalent", robust, 0.62, how),
        at_most(f"{what}, minutes of one core", seconds / 60, 5.0, how),
    ]


def _rendered() -> list[Row]:
    """The fast recipe on other images and at a larger budget, compared with the single step of the paper."""
    parts = (digits(RENDERED, seed=0), digits(RENDERED_TEST, seed=1))
    images, rows = Images("rendered digits", *parts, RENDERED_EPSILON), list[Row]()
    for config in (FAST, FAST.model_copy(update={"fast_steps": 1})):
        net, seconds = _trained(images, config)
        clean, robust = judged(images, net)
        what = f"fast training (fgsm-rs), rendered digits eps 0.3, {config.fast_steps} step(s)"
        rows += [
            shown(f"{what}, clean", clean, _how(images, config)),
            shown(f"{what}, AutoAttack-equivalent", robust, _how(images, config)),
            shown(f"{what}, minutes of one core", seconds / 60, _how(images, config)),
        ]
    return rows


def _how(images: Images, config: RecipeConfig) -> str:
    rows = f"{len(images.train)} rows, eps {images.epsilon}"
    return f"{config.epochs} epochs, mean of the weights, {rows}; {EXAMPLES} attacked by the release tier"


def _collapses(images: Images, seeds: int) -> list[Row]:
    """Trainings on part of the rows whose kept weights resist one step but not many."""
    rows = images.train.take(np.arange(COLLAPSE_ROWS))
    config = FAST.model_copy(update={"epochs": COLLAPSE_EPOCHS})
    gone = rescued = 0
    for seed in range(seeds):
        training = Training(images.network(seed=seed), rows, images.ball, config, seed=seed)
        while not training.finished:
            training.advance()
        best = training.best_epoch
        gone += best.robust < 0.5 * best.clean
        rescued += training.state.rescues
    how = (
        f"{COLLAPSE_ROWS} rows, {COLLAPSE_EPOCHS} epochs, seeds 0 to {seeds - 1}; taken back by the detector: {rescued}"
    )
    return [at_most("fast training (fgsm-rs), seeds that collapsed", gone, 0, how)]


def judged(images: Images, net: nn.Module) -> tuple[float, float]:
    """Accuracy on all held-out rows, and under the release tier on the first `EXAMPLES`."""
    clean = correct_in_batches(net, *images.tensors(len(images.test)))
    x, y = images.tensors(EXAMPLES)
    chosen = plans("release", "linf", images.classes, embedding=False)
    worst = measure(net, x, y, images.ball, chosen, seed=0).worst
    return float(clean.float().mean()), float(worst.float().mean())


def _trained(images: Images, config: RecipeConfig) -> tuple[nn.Module, float]:
    def make() -> nn.Module:
        return _fit(images, config)[0]

    return images.trained(_key(config), make, images.network())


def _fit(images: Images, config: RecipeConfig) -> tuple[nn.Module, Training]:
    torch.set_num_threads(1)
    training = Training(images.network(), images.train, images.ball, config, seed=0)
    while not training.finished:
        training.advance()
    training.net.load_state_dict(training.state.best)
    return training.net, training


def _key(config: RecipeConfig) -> str:
    """Another recipe is another network."""
    return f"{config.recipe}-{hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:8]}"
