"""linf: every entry moves by at most epsilon."""

from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.artifacts.documents import Norm
from holdfast.modality.ball import Corners
from holdfast.modality.lp import LpBall


class Linf(LpBall):
    """A box around x."""

    norm: ClassVar[Norm] = "linf"
    order: ClassVar[float] = inf

    def cut(self, delta: Tensor, bound: float | Tensor) -> Tensor:
        """Moves with every entry cut to `bound`."""
        if isinstance(bound, Tensor):
            return torch.minimum(torch.maximum(delta, -bound), bound)
        return delta.clamp(-bound, bound)

    def length(self, delta: Tensor) -> Tensor:
        """float32[N]: the largest entry of moves float32[N, D]."""
        return delta.abs().amax(1)

    def within_rounding(self, delta: Tensor, rounding: Tensor) -> Tensor:
        """bool[N]: whether no entry moves by more than epsilon."""
        return (delta.abs() <= self.epsilon + rounding).flatten(1).all(1)

    def dual(self, gradient: Tensor) -> Tensor:
        """float32[N]: the l1 norm of gradients in units of 1 / scale."""
        return gradient.flatten(1).abs().sum(1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The signs of the gradient."""
        return gradient.sign()

    def random_move(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in the box."""
        return torch.rand(x.shape, generator=generator, device=x.device) * 2 - 1

    def diagonal(self, x: Tensor) -> float:
        """One unit in every entry is a move of length 1."""
        return 1.0

    def push(self, point: Tensor, x: Tensor, *, window: Tensor, up: Tensor, corners: Corners) -> Tensor:
        """The point with the entries of `window` at a corner of the box, as in the paper of Square."""
        return torch.where(window, torch.where(up > 0, corners[1], corners[0]), point)

    def _rounded(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest whole numbers in the box; towards x where the nearest lies outside; the row's own fractions."""
        delta, near = x_adv - x, x_adv.round()
        reached = (near - x).abs() <= self.epsilon * self.scale + self._rounding_slack(delta)
        low, high = self._limits(x)
        inside = reached & (near >= low) & (near <= high)
        return torch.where(x == x.round(), torch.where(inside, near, self._towards(x_adv, x)), x)
