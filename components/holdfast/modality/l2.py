"""l2: the Euclidean length of the whole move is at most epsilon."""

from math import prod, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.artifacts.documents import Norm
from holdfast.modality.ball import Corners, column, lengths
from holdfast.modality.lp import LpBall


class L2(LpBall):
    """A sphere around x and what is inside it."""

    norm: ClassVar[Norm] = "l2"
    order: ClassVar[float] = 2

    def cut(self, delta: Tensor, bound: float | Tensor) -> Tensor:
        """Moves shortened along their direction."""
        return delta * (bound / lengths(delta).clamp_min(1e-12)).clamp_max(1.0)

    def length(self, delta: Tensor) -> Tensor:
        """float32[N]: the Euclidean length of moves float32[N, D]."""
        return _euclidean(delta)

    def within_rounding(self, delta: Tensor, rounding: Tensor) -> Tensor:
        """bool[N]: whether moves are no longer than epsilon."""
        # Rounding of single entries is far below that of their norm's bound.
        return _euclidean(delta.flatten(1)) <= self.epsilon + rounding.flatten(1).amax(1)

    def dual(self, gradient: Tensor) -> Tensor:
        """float32[N]: the l2 norm of gradients in units of 1 / scale."""
        return _euclidean(gradient.flatten(1))

    def steepest(self, gradient: Tensor) -> Tensor:
        """The gradient, of length 1."""
        return gradient / lengths(gradient).clamp_min(1e-20)

    def random_move(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in the ball of mutable entries."""
        direction = torch.randn(x.shape, generator=generator, device=x.device) * self.mutable
        radius = torch.rand(len(x), generator=generator, device=x.device) ** (1 / max(1, prod(x.shape[1:])))
        return direction / lengths(direction).clamp_min(1e-12) * column(radius, x)

    def diagonal(self, x: Tensor) -> float:
        """The square root of the number of entries."""
        return sqrt(prod(x.shape[1:]))

    def push(self, point: Tensor, x: Tensor, *, window: Tensor, up: Tensor, corners: Corners) -> Tensor:
        """The point with all the budget in `window` that the rest does not use, in equal shares with these signs."""
        rest = ((point - x) / self.scale).masked_fill(window, 0.0)
        # The window takes what the rest leaves, and half of the rest besides, so that budget can move.
        rest = rest * sqrt(0.5)
        room = (self.epsilon**2 - rest.flatten(1).pow(2).sum(1)).clamp_min(0).sqrt()
        cells = window.expand(x.shape).flatten(1).sum(1).clamp_min(1).sqrt()
        delta = rest + window * (up.to(x.dtype) * 2 - 1) * self.mutable * column(room / cells, x)
        return self.project(x + delta * self.scale, x)


def _euclidean(rows: Tensor) -> Tensor:
    """float32[N]: the length of each row float32[N, D]."""
    found: Tensor = rows.norm(dim=1)
    return found
