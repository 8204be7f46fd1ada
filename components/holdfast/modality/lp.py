"""What linf and l2 share: convex balls in units of scale, cut to the limits of the input and the rules of a table."""

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from holdfast.modality.ball import TOLERANCE, Ball, column

UNLIMITED_INPUT = 0.5
"""The epsilon, in input units [0, 1], at which every image can become uniform grey."""
UNLIMITED_SCALES = 10.0


class LpBall(Ball):
    """A ball of a norm of vectors; each norm defines how a move is cut, measured and walked."""

    attacks: ClassVar[Literal["gradient", "characters"]] = "gradient"

    @abstractmethod
    def cut(self, delta: Tensor, bound: float | Tensor) -> Tensor:
        """Moves `[N, ...]` in units of scale, shortened to length `bound` (a number, or float32[N, 1, ...])."""

    @abstractmethod
    def length(self, delta: Tensor) -> Tensor:
        """float32[N]: the length of moves float32[N, D]."""

    @abstractmethod
    def within_rounding(self, delta: Tensor, rounding: Tensor) -> Tensor:
        """bool[N]: whether moves `[N, ...]` are no longer than epsilon, up to rounding."""

    @abstractmethod
    def random_move(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random move `[N, ...]` of length at most one, in units of scale."""

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """A point of the ball around x near x_adv (`[N, ...]` both); the nearest one without limits."""
        delta = self._one_sided((x_adv - x) / self.scale * self.mutable)
        return self._limit(x + self.cut(delta, self.epsilon) * self.scale, x)

    def within(self, x_adv: Tensor, x: Tensor, bound: Tensor) -> Tensor:
        """A point near x_adv whose distance from x is at most `bound` float32[N], in units of scale."""
        delta = self.cut((x_adv - x) / self.scale * self.mutable, column(bound, x))
        return self._limit(x + self._one_sided(delta) * self.scale, x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """float32[N]: how far each x_adv is from x, in units of scale."""
        return self.length(((x_adv - x) / self.scale).flatten(1))

    def random_start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random point of the ball around each x `[N, ...]`: uniform, then cut to the limits."""
        delta = self.random_move(x, generator)
        return self.project(x + self.epsilon * delta * self.scale * self.mutable, x)

    def ascend(self, x: Tensor, gradient: Tensor, step: float | Tensor) -> Tensor:
        """The point that x comes to when moved by `step` in the norm's direction of steepest ascent."""
        if isinstance(step, Tensor):
            step = column(step, x)
        moved: Tensor = x + step * self.steepest(gradient * self.scale * self.mutable) * self.scale
        return moved

    def with_noise(self, x: Tensor, noise: float, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """The chosen rows with Gaussian noise of that many units of scale."""
        moved: Tensor = x + chosen * noise * self.scale * torch.randn(x.shape, generator=generator, device=x.device)
        return moved

    def unlimited(self, x: Tensor) -> float:
        """The diagonal of a box in which images become grey and features leave what was seen of them."""
        per_feature = self.scale.dim() > 0
        return max(UNLIMITED_SCALES if per_feature else UNLIMITED_INPUT, self.epsilon) * self.diagonal(x)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """bool[N]: whether each x_adv lies in the ball around x, up to rounding."""
        rounding = TOLERANCE * (1 + x.abs() / self.scale)
        delta = (x_adv - x) / self.scale
        low, high = self._limits(x)
        slack = rounding * self.scale
        inside = (x_adv >= low - slack) & (x_adv <= high + slack) & ((self.mutable > 0) | (delta.abs() <= rounding))
        inside = inside & self._allowed(x_adv, x, rounding)
        found: Tensor = inside.flatten(1).all(1) & self.within_rounding(delta, rounding)
        return found

    def settle(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The row that exists nearest to a point of the ball around x: whole numbers and categories (`[N, D]` both).

        Where nothing is discrete this is x_adv itself. Its gradient is taken as that of x_adv (straight through).
        """
        if self.whole is None and not self.choices:
            return x_adv
        with torch.no_grad():
            settled = x_adv if self.whole is None else torch.where(self.whole, self._rounded(x_adv, x), x_adv)
            for columns in self.choices:
                settled = _choose(settled, x, columns)
        return settled

    def _one_sided(self, delta: Tensor) -> Tensor:
        """The move without what features with a direction cannot do."""
        if self.down is None or self.up is None:
            return delta
        return delta.clamp_min(0) * self.up - (-delta).clamp_min(0) * self.down

    def _allowed(self, x_adv: Tensor, x: Tensor, rounding: Tensor) -> Tensor:
        """bool[N, ...]: whether directions, whole numbers and categories are kept."""
        delta = (x_adv - x) / self.scale
        kept = torch.ones_like(delta, dtype=torch.bool)
        if self.down is not None and self.up is not None:
            kept &= ((self.up > 0) | (delta <= rounding)) & ((self.down > 0) | (delta >= -rounding))
        if self.whole is not None:
            kept &= ~self.whole | (x_adv == x_adv.round()) | (x_adv == x)
        for columns in self.choices:
            one = (x_adv[:, columns] == 1).sum(1) + (x_adv[:, columns] == 0).sum(1) == len(columns)
            one &= (x_adv[:, columns].sum(1) == 1) | (x_adv[:, columns] == x[:, columns]).all(1)
            kept &= one[:, None]
        return kept

    def _rounded(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Whole numbers inside the ball, rounded towards x, so that no move grows longer; the row's own fractions."""
        return torch.where(x == x.round(), self._towards(x_adv, x), x)

    def _towards(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = x_adv - x
        return x + delta.sign() * (delta.abs() + self._rounding_slack(delta)).floor()

    def _rounding_slack(self, delta: Tensor) -> Tensor:
        return TOLERANCE * (1 + delta.abs())

    def _limits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.minimum(self.lower, x), torch.maximum(self.upper, x)

    def _limit(self, x_adv: Tensor, x: Tensor) -> Tensor:
        low, high = self._limits(x)
        return torch.minimum(torch.maximum(x_adv, low), high)


def _choose(x_adv: Tensor, x: Tensor, columns: tuple[int, ...]) -> Tensor:
    """The category with the largest value; the row's own where none is above it."""
    values, own = x_adv[:, columns], x[:, columns]
    best = values.argmax(1)
    stays = values.gather(1, best[:, None])[:, 0] <= (values * own).sum(1)
    chosen = torch.nn.functional.one_hot(best, len(columns)).to(x_adv.dtype)
    result = x_adv.clone()
    result[:, columns] = torch.where(stays[:, None], own, chosen)
    return result
