"""Randomized smoothing: its cost, and the network's alone, what the sequential mode saves, what is certified."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.scenes import Bench, Images
from benchmarks.table import Row, at_least, at_most, cpu_seconds, shown
from holdfast.model.certify import sequential, smoothing
from holdfast.model.certify.smoothing import Certified, Sampling
from holdfast.model.train.adversarial import one_cycle
from holdfast.statistics import lower_bound

SIGMA, RADIUS, EXAMPLES = 0.25, 0.5, 200
SAMPLING = Sampling(n0=100, n=10_000, alpha=0.001)
EPOCHS, BATCH, LEARNING_RATE = 16, 128, 4e-3
STREAMS, BLOCK = 500_000, 50_000
EQUAL = 0.99
P0 = sequential.gaussian_threshold(SIGMA)(RADIUS)
Flags = NDArray[np.bool_]
HOW = f"first {EXAMPLES} held-out images, sigma {SIGMA}, N 10,000, alpha 0.001, one thread"


def run(bench: Bench) -> list[Row]:
    """Throughput, certified accuracy, the sequential mode compared with the fixed one, and its error rate."""
    images = bench.images
    net, _ = images.trained(f"smoothed-{EPOCHS}x{BATCH}", lambda: _train(images), images.network())
    x, y = images.tensors(EXAMPLES)
    fixed, once = _timed(partial(_fixed, net, x, seed=0))
    quick, twice = _timed(partial(_sequential, net, x, seed=2))
    return [
        _throughput(net, x),
        *_accuracy(images, fixed, y),
        *_savings(fixed, quick, _Streams.of(net, x, seed=1), once / twice),
        *_errors(),
        shown("ART PyTorchRandomizedSmoothing.certify", "not run", "it needs statsmodels, which ART does not declare"),
    ]


def _train(images: Images) -> nn.Module:
    """Every row with Gaussian noise, as in Cohen et al. 2019."""
    net, generator = images.network(), torch.Generator().manual_seed(0)
    x, y = torch.from_numpy(images.train.x), torch.from_numpy(images.train.y)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=5e-4)
    for epoch in range(EPOCHS):
        parts = torch.randperm(len(y), generator=generator).split(BATCH)
        for i, part in enumerate(parts):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * one_cycle((epoch + i / len(parts)) / EPOCHS)
            noisy = x[part] + SIGMA * torch.randn(x[part].shape, generator=generator)
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(net(noisy), y[part]).backward()
            optimizer.step()
    return net.eval()


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


def _savings(fixed: Sequence[Certified], quick: Sequence[Certified], again: "_Streams", time: float) -> list[Row]:
    one, other = (np.array([c.radius >= RADIUS for c in found]) for found in (fixed, quick))
    used = sum(c.forwards for c in quick)
    twice, same = _share(one, again.fixed), _share(again.fixed, again.sequential)
    how, name = f"{HOW}; other samples than the fixed run's", "smoothing, sequential, radius 0.5"
    note = "" if _share(one, other) >= EQUAL else f"fixed N with other samples agrees with itself on {twice}"
    return [
        at_least(f"{name}: forwards saved, times", sum(c.forwards for c in fixed) / used, 5.0, how),
        at_least(f"{name}: equal decisions", _share(one, other), EQUAL, how, note=note),
        shown(f"{name}: equal decisions on the same samples", same, HOW),
        shown("smoothing, fixed N twice, radius 0.5: equal decisions", twice, how),
        shown(f"{name}: CPU-seconds saved, times", time, how),
        shown(f"{name}: forwards per example", used / len(quick), how),
    ]


def _share(one: Flags, other: Flags) -> float:
    return float((one == other).mean())


@dataclass(frozen=True)
class _Streams:
    """The decisions of both modes on one and the same samples, bool[M]."""

    fixed: Flags
    sequential: Flags

    @classmethod
    def of(cls, net: nn.Module, x: Tensor, *, seed: int) -> "_Streams":
        draw, batch = _draw(seed), SAMPLING.batch
        labels = smoothing.top_classes(smoothing.answers(net, x, SAMPLING.n0, draw=draw, batch=batch))
        agree = smoothing.answers(net, x, SAMPLING.n, draw=draw, batch=batch) == labels[:, None]
        enough = [lower_bound(int(k), SAMPLING.n, SAMPLING.alpha) > P0 for k in agree.sum(axis=1)]
        at = sequential.looks(SAMPLING.n)
        return cls(np.array(enough), _decided(agree.cumsum(axis=1)[:, at - 1]))


def _decided(agreeing: NDArray[np.int64]) -> Flags:
    """Whether streams with int64[M, J] agreeing samples at each look are certified."""
    test = sequential.boundary(P0, SAMPLING.alpha, SAMPLING.n)
    certified, given_up = np.zeros(len(agreeing), dtype=np.bool_), np.zeros(len(agreeing), dtype=np.bool_)
    for j, seen in enumerate(agreeing.T):
        certified |= ~given_up & (seen >= test.certify[j])
        given_up |= ~certified & (seen <= test.give_up[j])
    return certified


def _errors() -> list[Row]:
    at = sequential.looks(SAMPLING.n)
    steps = np.diff(at, prepend=0)
    rng = np.random.default_rng(0)
    parts = [_decided(rng.binomial(steps, P0, (BLOCK, len(at))).cumsum(axis=1)) for _ in range(STREAMS // BLOCK)]
    how = f"{STREAMS:,} simulated streams whose rate is exactly Phi(r / sigma), as decided by the mode"
    name = "smoothing, sequential, radius 0.5: wrong certificates, times alpha"
    error = sequential.boundary(P0, SAMPLING.alpha, SAMPLING.n).error
    exact = "the sum over the looks that the method's docstring names"
    return [
        at_most(name, float(np.concatenate(parts).mean()) / SAMPLING.alpha, 1.0, how),
        at_most(f"{name}, exact, nobody given up", error / SAMPLING.alpha, 1.0, exact),
    ]
