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

from holdfast_gates.intervals import lower_bound

Votes = NDArray[np.int64]
"""How often f answered each class under noise, int64[classes]."""
Draw = Callable[[Tensor, int], Tensor]
"""x `[...]` and n -> n randomized copies of x `[n, ...]`."""

ABSTAIN = -1.0
"""The radius of an example that is not certified: g has no clear winner there."""


@dataclass(frozen=True)
class Certified:
    """One example: the class that g answers, and the radius within which it does not change (`ABSTAIN`: unknown)."""

    label: int
    radius: float

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
    batch: int = 1000


def certify(
    net: nn.Module, x: Tensor, *, draw: Draw, radius_of: Callable[[float], float], sampling: Sampling
) -> Certified:
    """Certifies one example x `[...]`; with probability at least 1 - alpha the radius is sound.

    The samples that choose the class are not the ones that estimate its probability.
    """
    label = int(count_votes(net, x, sampling.n0, draw=draw, batch=sampling.batch).argmax())
    votes = count_votes(net, x, sampling.n, draw=draw, batch=sampling.batch)
    p = lower_bound(int(votes[label]), sampling.n, sampling.alpha)
    return Certified(label, radius_of(p) if p > 0.5 else ABSTAIN)


def count_votes(net: nn.Module, x: Tensor, n: int, *, draw: Draw, batch: int) -> Votes:
    """The answers of the network to n randomized copies of x."""
    found: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, n, batch):
            found.append(net(draw(x, min(batch, n - start))))
    answers = torch.cat(found)
    return np.bincount(answers.argmax(dim=1).cpu().numpy(), minlength=answers.shape[1])


def gaussian(sigma: float, scale: Tensor, generator: torch.Generator) -> Draw:
    """Draws N(x, (sigma * scale)^2); entries of `scale` that are 0 stay as they are."""

    def draw(x: Tensor, n: int) -> Tensor:
        noise = torch.randn((n, *x.shape), generator=generator, device=x.device)
        noisy: Tensor = x + sigma * scale * noise
        return noisy

    return draw


def gaussian_radius(sigma: float) -> Callable[[float], float]:
    """p -> sigma * Phi^-1(p): the L2 radius that a lower bound p > 1/2 of the top class proves (theorem 1)."""
    from scipy.special import ndtri

    return lambda p: sigma * float(ndtri(p))


def largest_radius(sigma: float, sampling: Sampling) -> float:
    """The largest radius that `sampling` can prove, when every sample agrees."""
    return gaussian_radius(sigma)(lower_bound(sampling.n, sampling.n, sampling.alpha))
