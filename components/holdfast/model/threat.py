"""The set of inputs that an attacker can reach from x.

Distances are measured in units of `scale` (1 for images, a feature's standard deviation for tables): the attacker
reaches x' with ||(x' - x) / scale||_p <= epsilon on mutable entries, inside [lower, upper]. A held-out value that lies
outside these limits by itself may stay where it is. Text: at most epsilon characters of the message are replaced.
"""

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from holdfast.artifacts.documents import InputSpec, Norm, ThreatModel
from holdfast.model.inputs import PAD, SYMBOLS, TYPED

TOLERANCE = 1e-5
"""Rounding that `contains` allows, in units of scale and relative to the value."""


@dataclass(frozen=True)
class Ball:
    """What an attacker reaches around one example; the tensors are broadcastable to one example."""

    norm: Norm
    epsilon: float
    lower: Tensor
    upper: Tensor
    scale: Tensor
    mutable: Tensor

    @classmethod
    def of(cls, threat: ThreatModel, spec: InputSpec, device: str) -> "Ball":
        """The ball of a threat model around inputs of `spec`."""
        features = spec.features

        def tensor(values: list[float], otherwise: float) -> Tensor:
            return torch.tensor(values if features else otherwise, dtype=torch.float32, device=device)

        return cls(
            norm=threat.norm,
            epsilon=float(threat.epsilon),
            lower=tensor([f.lower for f in features], spec.lower),
            upper=tensor([f.upper for f in features], spec.upper if spec.modality != "text" else SYMBOLS - 1),
            scale=tensor([f.scale for f in features], 1.0),
            mutable=tensor([float(f.mutable) for f in features], 1.0),
        )

    def resized(self, epsilon: float) -> "Ball":
        """The same ball with another epsilon."""
        return replace(self, epsilon=epsilon)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """A point of the ball around x near x_adv (`[N, ...]` both); the nearest one for linf and l2 without limits."""
        if self.norm == "edits":
            return self._project_edits(x_adv, x)
        delta = (x_adv - x) / self.scale * self.mutable
        if self.norm == "linf":
            delta = delta.clamp(-self.epsilon, self.epsilon)
        else:
            delta = delta * (self.epsilon / _norms(delta).clamp_min(1e-12)).clamp_max(1.0)
        return self._limit(x + delta * self.scale, x)

    def random_start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random point of the ball around each x `[N, ...]`: uniform, then cut to the limits."""
        if self.norm == "edits":
            return random_edits(x, int(self.epsilon), generator)
        if self.norm == "linf":
            delta = torch.rand(x.shape, generator=generator, device=x.device) * 2 - 1
        else:
            direction = torch.randn(x.shape, generator=generator, device=x.device) * self.mutable
            radius = torch.rand(len(x), generator=generator, device=x.device) ** (1 / max(1, prod(x.shape[1:])))
            delta = direction / _norms(direction).clamp_min(1e-12) * _column(radius, x)
        return self.project(x + self.epsilon * delta * self.scale * self.mutable, x)

    def ascend(self, x: Tensor, gradient: Tensor, step: float | Tensor) -> Tensor:
        """Where x comes to when moved by `step` in the norm's direction of steepest ascent.

        `step` is in units of scale: one number, or float32[N] with one per example.
        """
        if self.norm == "edits":
            raise ValueError("a message has no gradient to follow: characters are flipped instead (hotflip.py)")
        if isinstance(step, Tensor):
            step = _column(step, x)
        g = gradient * self.scale * self.mutable
        direction = g.sign() if self.norm == "linf" else g / _norms(g).clamp_min(1e-20)
        moved: Tensor = x + step * direction * self.scale
        return moved

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """bool[N]: whether each x_adv lies in the ball around x, up to rounding."""
        if self.norm == "edits":
            return self._contains_edits(x_adv, x)
        rounding = TOLERANCE * (1 + x.abs() / self.scale)
        delta = (x_adv - x) / self.scale
        low, high = self._limits(x)
        slack = rounding * self.scale
        inside = (x_adv >= low - slack) & (x_adv <= high + slack) & ((self.mutable > 0) | (delta.abs() <= rounding))
        if self.norm == "linf":
            return (inside & (delta.abs() <= self.epsilon + rounding)).flatten(1).all(1)
        # Rounding of single entries is far below that of their norm's bound.
        length = delta.flatten(1).norm(dim=1)
        within: Tensor = inside.flatten(1).all(1) & (length <= self.epsilon + rounding.flatten(1).amax(1))
        return within

    def _limits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.minimum(self.lower, x), torch.maximum(self.upper, x)

    def _limit(self, x_adv: Tensor, x: Tensor) -> Tensor:
        low, high = self._limits(x)
        return torch.minimum(torch.maximum(x_adv, low), high)

    def _project_edits(self, x_adv: Tensor, x: Tensor) -> Tensor:
        changed = (x_adv != x) & (x != PAD) & (x_adv != PAD)
        allowed = changed & (changed.cumsum(1) <= int(self.epsilon))
        return torch.where(allowed, x_adv, x)

    def _contains_edits(self, x_adv: Tensor, x: Tensor) -> Tensor:
        changed = x_adv != x
        legal = ~changed | ((x != PAD) & (x_adv != PAD) & (x_adv >= 0) & (x_adv < SYMBOLS))
        return legal.all(1) & (changed.sum(1) <= int(self.epsilon))


def random_edits(ids: Tensor, edits: int, generator: torch.Generator) -> Tensor:
    """Character ids int64[N, L] with `edits` random characters of each message replaced by typed ones."""
    order = torch.rand(ids.shape, generator=generator, device=ids.device).masked_fill(ids == PAD, -1.0)
    chosen = order.topk(min(edits, ids.shape[1]), dim=1).indices
    typed = torch.tensor(TYPED, device=ids.device)
    symbols = typed[torch.randint(len(TYPED), chosen.shape, generator=generator, device=ids.device)]
    return torch.where(ids == PAD, ids, ids.scatter(1, chosen, symbols))


def _norms(delta: Tensor) -> Tensor:
    """L2 norm of each example, shaped [N, 1, ...]."""
    return _column(delta.flatten(1).norm(dim=1), delta)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *([1] * (like.dim() - 1)))
