"""Randomized smoothing (Cohen, Rosenfeld, Kolter 2019, https://arxiv.org/abs/1902.02918), algorithm CERTIFY.

f is the network, sigma the noise in units of `scale` (1 for images, a feature's standard deviation for tables), and
g(x) the class that f answers most often under N(x, sigma^2 I) noise. With probability at least 1 - alpha over the
samples, g is constant within the returned L2 radius (same units) around x, over the entries that an attacker can
change.

Noise is added to inputs as the network takes them, before anything that the network does itself (standardizing), so
that radii are in original coordinates; it is not clipped, because the theorem is about all of space.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holdfast.errors import ModelError
from holdfast.statistics import lower_bound

PredictedClasses = NDArray[np.int64]
"""Classes, int64[M, n] or int64[M]."""
Draw = Callable[[Tensor, int], Tensor]
"""Examples `[M, ...]` and n -> n randomized copies of each, `[M, n, ...]`.

The copies of one example are independent of each other and of all other calls; those of different examples of one call
may share their noise. What is claimed of each example stays true, and so does every sum of their chances of error.
"""
RadiusOf = Callable[[float], float]
"""A lower bound p > 1/2 of the top class's probability -> the radius that it proves."""

BATCH = {"cpu": 512, "cuda": 8192}
"""Copies in one call of the network: what stays in a CPU's cache, what fills a GPU."""
TOGETHER = 16
"""Examples that share a call of `Draw`."""
ABSTAIN = -1.0
"""The radius of an example that is not certified: g has no clear winner there."""


@dataclass(frozen=True)
class Certified:
    """One example: the class that g answers, and the radius within which it does not change (`ABSTAIN`: unknown)."""

    label: int
    radius: float
    forwards: int = 0
    """How many copies the network was asked about."""

    @property
    def abstained(self) -> bool:
        """Whether g has no clear winner."""
        return self.radius == ABSTAIN


@dataclass(frozen=True)
class Sampling:
    """How many samples choose the class (n0) and estimate its probability (n), and how often the bound may be wrong."""

    n0: int
    n: int
    alpha: float
    batch: int = BATCH["cpu"]
    """Copies in one call of the network."""


def certify(net: nn.Module, x: Tensor, *, draw: Draw, radius_of: RadiusOf, sampling: Sampling) -> Certified:
    """Certifies one example x `[...]`; with probability at least 1 - alpha the radius is sound."""
    return certify_all(net, x[None], draw=draw, radius_of=lambda _: radius_of, sampling=sampling)[0]


def certify_all(
    net: nn.Module, x: Tensor, *, draw: Draw, radius_of: Callable[[Tensor], RadiusOf], sampling: Sampling
) -> list[Certified]:
    """Certifies examples x `[M, ...]`; each radius is sound with probability at least 1 - alpha.

    The samples that choose the class are not the ones that estimate its probability.
    """
    labels = top_classes(answers(net, x, sampling.n0, draw=draw, batch=sampling.batch))
    agreeing = (answers(net, x, sampling.n, draw=draw, batch=sampling.batch) == labels[:, None]).sum(axis=1)
    found = []
    for example, label, k in zip(x, labels.tolist(), agreeing.tolist(), strict=True):
        p = lower_bound(k, sampling.n, sampling.alpha)
        radius = radius_of(example)(p) if p > 0.5 else ABSTAIN
        found.append(Certified(label, radius, sampling.n0 + sampling.n))
    return found


def answers(net: nn.Module, x: Tensor, n: int, *, draw: Draw, batch: int) -> PredictedClasses:
    """The classes int64[M, n] that the network answers for n randomized copies of each example x `[M, ...]`.

    Copies that do not fit the memory are drawn again, half as many at a time.

    Raises:
        ModelError: not even one copy of each example that shares a draw fits.
    """
    found = np.empty((len(x), n), dtype=np.int64)
    with torch.inference_mode():
        for top in range(0, len(x), TOGETHER):
            rows, start = x[top : top + TOGETHER], 0
            while start < n:
                step = max(1, batch // len(rows))
                try:
                    classes = _classes(net, draw(rows, min(step, n - start)))
                except torch.OutOfMemoryError:
                    if step == 1:
                        raise ModelError("expected memory for one copy of each example, found too little") from None
                    batch //= 2
                    continue
                found[top : top + TOGETHER, start : start + step] = classes
                start += step
    return found


def _classes(net: nn.Module, copies: Tensor) -> PredictedClasses:
    """int64[M, n]: the network's answers for copies `[M, n, ...]`."""
    return net(copies.flatten(0, 1)).argmax(dim=1).reshape(copies.shape[:2]).cpu().numpy()  # type: ignore[no-any-return]


def top_classes(votes: PredictedClasses) -> PredictedClasses:
    """The class that each row names most often, int64[M]."""
    return np.array([np.bincount(row).argmax() for row in votes], dtype=np.int64)


def gaussian(sigma: float, scale: Tensor, generator: torch.Generator) -> Draw:
    """Draws N(x, (sigma * scale)^2); entries of `scale` that are 0 stay as they are."""
    deviation = sigma * scale

    def draw(x: Tensor, n: int) -> Tensor:
        # With small networks the noise is what costs, so that the examples of a call share it.
        noise = torch.empty((n, *x.shape[1:]), device=x.device).normal_(generator=generator).mul_(deviation)
        return x[:, None] + noise

    return draw


def gaussian_radius(sigma: float) -> RadiusOf:
    """p -> sigma * Phi^-1(p): the L2 radius that a lower bound p > 1/2 of the top class proves (theorem 1)."""
    from scipy.special import ndtri

    return lambda p: sigma * float(ndtri(p))


def largest_radius(sigma: float, sampling: Sampling) -> float:
    """The largest radius that `sampling` can prove, when every sample agrees."""
    return gaussian_radius(sigma)(lower_bound(sampling.n, sampling.n, sampling.alpha))
