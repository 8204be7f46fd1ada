"""The set of inputs that an attacker can reach from x: what every norm answers.

Distances are measured in units of `scale` (1 for images, a feature's standard deviation for tables): the attacker
reaches x' with ||(x' - x) / scale||_p <= epsilon on mutable entries, inside [lower, upper]. A held-out value that lies
outside these limits by itself may stay where it is. Text: at most epsilon characters of the message are replaced.

Tables know more. A feature with a budget of its own has scale = budget / epsilon, so that epsilon units are that
budget. A one-sided feature moves up or down only. Whole numbers stay whole, and a category that the attacker may choose
stays one value of its column: attacks walk in the convex `project`, and are judged at `settle`, the nearest row that
exists (Ballet et al. 2019, https://arxiv.org/abs/1911.03274, and Simonetto et al. 2022,
https://arxiv.org/abs/2112.01156, on what a feasible row is).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from holdfast.artifacts.documents import InputSpec, Norm, ThreatModel
from holdfast.modality.norms import BOXES

TOLERANCE = 1e-5
"""Rounding that `contains` allows, in units of scale and relative to the value."""
Corners = tuple[Tensor, Tensor]
"""The lowest and the highest point, each `[N, ...]`."""


@dataclass(frozen=True)
class Ball(ABC):
    """What an attacker reaches around one example; the tensors are broadcastable to one example."""

    norm: ClassVar[Norm]
    attacks: ClassVar[Literal["gradient", "characters"]]
    """The attacks that fit it: `holdfast.model.attack.kinds`."""
    order: ClassVar[float]
    """p of the norm."""

    epsilon: float
    lower: Tensor
    upper: Tensor
    scale: Tensor
    mutable: Tensor
    down: Tensor | None = None
    """0 where a value cannot fall; None: every mutable value can move both ways."""
    up: Tensor | None = None
    """0 where a value cannot grow."""
    whole: Tensor | None = None
    """bool: where values are whole numbers."""
    choices: tuple[tuple[int, ...], ...] = ()
    """Columns of each category that the attacker may choose: one of them is 1, the others are 0."""

    @staticmethod
    def of(threat: ThreatModel, spec: InputSpec, device: str) -> "Ball":
        """The ball of a threat model around inputs of `spec`.

        Raises:
            WorkloadError: the threat model names a feature that the data does not have, or asks of it what it cannot.
        """
        from holdfast.modality import modality_of

        return modality_of(spec.modality).ball(threat, spec, device)

    @property
    def is_box(self) -> bool:
        """Whether the ball is a box: each entry moves independently of the others."""
        return self.norm in BOXES

    def resized(self, epsilon: float) -> Self:
        """The same ball with another epsilon."""
        return replace(self, epsilon=epsilon)

    def without_limits(self) -> Self:
        """The same ball where inputs have no limits: points in it need not be inputs."""
        return replace(self, lower=torch.full_like(self.lower, -inf), upper=torch.full_like(self.upper, inf))

    # --- what every norm answers --------------------------------------------------------------------------------------

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """A point of the ball around x near x_adv (`[N, ...]` both); the nearest one for linf and l2 without limits."""

    @abstractmethod
    def random_start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random point of the ball around each x `[N, ...]`: uniform, then cut to the limits."""

    @abstractmethod
    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """bool[N]: whether each x_adv lies in the ball around x, up to rounding."""

    @abstractmethod
    def with_noise(self, x: Tensor, noise: float, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """The rows x `[N, ...]`, the `chosen` bool[N, 1, ...] of them with the noise that certificates smooth with."""

    @abstractmethod
    def unlimited(self, x: Tensor) -> float:
        """An epsilon at which no model can hold around x `[N, ...]`."""

    def epsilons(self, wanted: Iterable[Fraction]) -> tuple[Fraction, ...]:
        """The budgets of a curve that mean something in this norm."""
        return tuple(wanted)

    def settle(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The input that exists nearest to a point of the ball around x (`[N, ...]` both)."""
        return x_adv

    # --- what norms answer whose balls are convex ---------------------------------------------------------------------

    def within(self, x_adv: Tensor, x: Tensor, bound: Tensor) -> Tensor:
        """A point near x_adv whose distance from x is at most `bound` float32[N], in units of scale."""
        raise self._without_gradient()

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """float32[N]: how far each x_adv is from x, in units of scale."""
        raise self._without_gradient()

    def dual(self, gradient: Tensor) -> Tensor:
        """float32[N]: the dual norm of gradients in units of 1 / scale: l1 for linf, l2 for l2."""
        raise self._without_gradient()

    def steepest(self, gradient: Tensor) -> Tensor:
        """The move `[N, ...]` of length one along which a linear function with this gradient grows most."""
        raise self._without_gradient()

    def ascend(self, x: Tensor, gradient: Tensor, step: float | Tensor) -> Tensor:
        """The point that x comes to when moved by `step` in the norm's direction of steepest ascent.

        `step` is in units of scale: one number, or float32[N] with one per example.
        """
        raise self._without_gradient()

    def diagonal(self, x: Tensor) -> float:
        """The length of a move by one unit of scale in every entry of an example of x `[N, ...]`."""
        raise self._without_gradient()

    def push(self, point: Tensor, x: Tensor, *, window: Tensor, up: Tensor, corners: Corners) -> Tensor:
        """The point with the entries of `window` (bool) moved up or down as far as the rest of the move allows.

        `up` is 1 or 0, `corners` the ball's lowest and highest point; both are broadcastable to x `[N, ...]`.
        """
        raise self._without_gradient()

    def _without_gradient(self) -> ValueError:
        return ValueError("a message has no gradient to follow: characters are flipped instead (hotflip.py)")


def lengths(delta: Tensor) -> Tensor:
    """L2 norm of each example, shaped [N, 1, ...]."""
    return column(delta.flatten(1).norm(dim=1), delta)


def column(values: Tensor, like: Tensor) -> Tensor:
    """Values[N], shaped [N, 1, ...] to be broadcast over `like` `[N, ...]`."""
    return values.reshape(-1, *([1] * (like.dim() - 1)))
