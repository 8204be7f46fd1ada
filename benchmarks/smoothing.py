"""Randomized smoothing: what it costs beside the network alone, what the sequential mode saves, what is certified."""

from collections.abc import Sequence
from functools import partial
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.scenes import Bench, Images
from benchmarks.table import Row, at_least, at_most, cpu_seconds, shown
from holdfast.model.certify import sequential, smoothing
from holdfast.model.certify.smoothing import Certified, Sampling
from holdfast.model.train.adversarial import Training
from holdfast.workload import RecipeConfig

SIGMA, RADIUS, EXAMPLES = 0.25, 0.5, 200
SAMPLING = Sampling(n0=100, n=10_000, alpha=0.001)
EPOCHS, LEARNING_RATE = 12, 4e-3
STREAMS = 500_000
HOW = f"first {EXAMPLES} held-out images, sigma {SIGMA}, N 10,000, alpha 0.001, one thread"


def run(bench: Bench) -> list[Row]:
    """Throughput, certified accuracy, the sequential mode beside the fixed one, and its error rate."""
    images = bench.images
    net, _ = images.trained("smoothed", lambda: _train(images), images.network())
    x, y = images.tensors(EXAMPLES)
    fixed, once = _timed(partial(_fixed, net, x, seed=0))
    again = _fixed(net, x, seed=1)
    quick, twice = _timed(partial(_sequential, net, x, seed=2))
    return [
        _throughput(net, x),
        *_accuracy(images, fixed, y),
        *_savings(fixed, again, quick, once / twice),
        *_errors(),
        shown("ART PyTorchRandomizedSmoothing.certify", "not run", "it needs statsmodels, which ART does not declare"),
    ]


def _train(images: Images) -> nn.Module:
    recipe = RecipeConfig(recipe="standard", epochs=EPOCHS, learning_rate=LEARNING_RATE, noise=SIGMA)
    training = Training(images.network(), images.train, images.ball, recipe, seed=0)
    while not training.finished:
        training.advance()
    training.net.load_state_dict(training.state.best)
    return training.net


def _draw(seed: int) -> smoothing.Draw:
    return smoothing.gaussian(SIGMA, torch.tensor(1.0), torch.Generator().manual_seed(seed))


def _fixed(net: nn.Module, x: Tensor, *, seed: int) -> list[Certified]:
    radius_of = smoothing.gaussian_radius(SIGMA)
    return smoothing.certify_all(net, x, draw=_draw(seed), radius_of=lambda _: radius_of, sampling=SAMPLING)


def _sequential(net: nn.Module, x: Tensor, *, seed: int) -> list[Certified]:
    tests = sequential.table(sequential.gaussian_threshold(SIGMA), (RADIUS,), SAMPLING)
    return sequential.certify_table(net, x, draw=_draw(seed), table_of=lambda _: tests, sampling=SAMPLING)


def _timed(work: partial[list[Certified]]) -> tuple[list[Certified], float]:
    found: list[Certified] = []
    return found, cpu_seconds(lambda: found.extend(work()))


def _throughput(net: nn.Module, x: Tensor) -> Row:
    """Noisy forwards per CPU-second of the certificate over those of the network alone, best of 9 in turns."""
    rows = x[: smoothing.TOGETHER]
    each = SAMPLING.batch // len(rows)
    batch = rows.repeat_interleave(each, dim=0)
    calls = ceil(4000 / len(batch))
    draw = _draw(0)

    def alone() -> None:
        with torch.inference_mode():
            for _ in range(calls):
                net(batch)

    def certified() -> None:
        smoothing.answers(net, rows, calls * each, draw=draw, batch=SAMPLING.batch)

    pairs = [(cpu_seconds(alone), cpu_seconds(certified)) for _ in range(9)]
    raw, ours = (min(times) for times in zip(*pairs, strict=True))
    target = "smoothing, fixed N: noisy forwards per CPU-second over the network's alone"
    return at_least(target, raw / ours, 0.9, f"batch {len(batch)}, best of 9 in turns, one thread")


def _accuracy(images: Images, found: Sequence[Certified], y: Tensor) -> list[Row]:
    radii = np.array([c.radius if c.label == label else -1.0 for c, label in zip(found, y.tolist(), strict=True)])
    name = f"smoothing, {images.name}, sigma {SIGMA}: certified accuracy at radius"
    return [
        at_least(f"{name} 0.25", float((radii >= 0.25).mean()), 0.80, HOW),
        at_least(f"{name} 0.5", float((radii >= 0.5).mean()), 0.70, HOW),
        shown(f"{name} 0", float((radii >= 0).mean()), HOW),
    ]


def _savings(
    fixed: Sequence[Certified], again: Sequence[Certified], quick: Sequence[Certified], time: float
) -> list[Row]:
    used = sum(c.forwards for c in quick)
    how = f"{HOW}; other samples than the fixed run's"
    return [
        at_least("smoothing, sequential, radius 0.5: forwards saved, times", _asked(fixed) / used, 5.0, how),
        at_least("smoothing, sequential, radius 0.5: equal decisions", _equal(fixed, quick), 0.99, how),
        shown("smoothing, fixed N twice with other samples: equal decisions", _equal(fixed, again), HOW),
        shown("smoothing, sequential, radius 0.5: CPU-seconds saved, times", time, how),
        shown("smoothing, sequential, radius 0.5: forwards per example", used / len(quick), how),
    ]


def _asked(found: Sequence[Certified]) -> int:
    return sum(c.forwards for c in found)


def _equal(one: Sequence[Certified], other: Sequence[Certified]) -> float:
    return float(np.mean([(a.radius >= RADIUS) == (b.radius >= RADIUS) for a, b in zip(one, other, strict=True)]))


def _errors() -> list[Row]:
    p0 = sequential.gaussian_threshold(SIGMA)(RADIUS)
    test = sequential.boundary(p0, SAMPLING.alpha, SAMPLING.n)
    wrong = _certified(test, sequential.looks(SAMPLING.n), p0).mean()
    how = f"{STREAMS:,} simulated streams whose rate is exactly Phi(r / sigma), as decided by the mode"
    name = "smoothing, sequential, radius 0.5: wrong certificates"
    return [
        at_most(name, float(wrong), SAMPLING.alpha, how),
        at_most(f"{name}, exact, nobody given up", test.error, SAMPLING.alpha, "the sum that the docstring names"),
    ]


def _certified(test: sequential.Boundary, at: NDArray[np.int64], p: float) -> NDArray[np.bool_]:
    rng = np.random.default_rng(0)
    agreeing, certified = np.zeros(STREAMS, dtype=np.int64), np.zeros(STREAMS, dtype=np.bool_)
    active = np.arange(STREAMS)
    for j, (before, n) in enumerate(zip([0, *at], at, strict=False)):
        agreeing[active] += rng.binomial(n - before, p, len(active))
        certified[active] = agreeing[active] >= test.certify[j]
        active = active[~certified[active] & (agreeing[active] > test.give_up[j])]
    return certified
