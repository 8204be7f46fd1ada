"""Trigger inversion: Neural Cleanse (Wang et al. 2019, https://doi.org/10.1109/SP.2019.00031).

For each class t the smallest mask m in [0, 1] and a pattern p are sought so that (1 - m) x + m p is answered with t for
almost every x of another class. All classes are inverted at once: one forward pass takes a batch for each of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from holdfast.model.threat import Ball

BATCH = 32
"""Rows of other classes that each class sees in one step."""
_RATE, _BETAS = 0.1, (0.5, 0.9)
_MEMORY = 0.9
"""Largest weight of the past in the running success; the first steps are averaged evenly."""
_WEIGHT, _GROWTH = 1e-2, 1.05
"""Where the weight of the mask's norm starts, and by how much it moves in a step."""
_LIGHTEST, _HEAVIEST = 1e-4, 10.0
_SPREAD = 0.1


@dataclass(frozen=True)
class Triggers:
    """One trigger for each class.

    mask float32[K, 1, H, W] or [K, D] in [0, 1]; pattern float32[K, C, H, W] or [K, D] in the input's own units;
    reached bool[K]: whether any mask came to the success that was asked for. Where not, the mask is 1 everywhere.
    """

    mask: Tensor
    pattern: Tensor
    reached: Tensor

    @property
    def sizes(self) -> Tensor:
        """float32[K]: L1 norm of each mask, in cells."""
        return self.mask.flatten(1).sum(1)


def invert(
    net: nn.Module,
    rows: tuple[Tensor, Tensor],
    limits: Ball,
    *,
    classes: int,
    goal: float,
    steps: Iterable[int],
    seed: int,
) -> Triggers:
    """The smallest triggers found that send `goal` of the rows of other classes to each class.

    Args:
        net: Its weights are frozen.
        rows: x float32[N, ...] and y int64[N], with rows of at least two classes.
        limits: Where values may lie and which may change; its epsilon plays no part.
        classes: K.
        goal: Share of rows, in the batch and in the running mean, from which on a mask is kept and weighs more.
        steps: One step of Adam for each.
        seed: Of the batches and of the start.
    """
    search = _Search(rows, limits, classes, seed)
    for _ in steps:
        search.advance(net, goal)
    return search.found()


def stamp(x: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """The examples `[..., *shape]` with a trigger on them."""
    return (1 - mask) * x + mask * pattern


class _Search:
    """The state of an inversion; logit-scaled mask and pattern are what Adam moves."""

    def __init__(self, rows: tuple[Tensor, Tensor], limits: Ball, classes: int, seed: int) -> None:
        self.x, y = rows
        device, shape = self.x.device, self.x.shape[1:]
        self.limits, self.classes = limits, classes
        self.generator = torch.Generator(device).manual_seed(seed)
        flat = (1, *shape[1:]) if len(shape) > 1 else tuple(shape)
        self.mutable = limits.mutable.expand(flat)
        self.mask = self._start((classes, *flat))
        self.pattern = self._start((classes, *shape))
        self.adam = torch.optim.Adam([self.mask, self.pattern], lr=_RATE, betas=_BETAS)
        self.others = [(y != target).nonzero()[:, 0] for target in range(classes)]
        self.targets = torch.arange(classes, device=device).repeat_interleave(BATCH)
        self.weight = torch.full((classes,), _WEIGHT, device=device)
        self.success, self.steps = torch.zeros(classes, device=device), 0
        self.size = torch.full((classes,), torch.inf, device=device)
        self.kept_mask = self.mutable.expand(classes, *flat).clone()
        self.kept_pattern = self._values().detach()

    def advance(self, net: nn.Module, goal: float) -> None:
        """One step of Adam; a mask that is smaller than the one kept and reaches the goal takes its place."""
        mask, pattern = torch.sigmoid(self.mask) * self.mutable, self._values()
        found = net(stamp(self._batch(), mask[:, None], pattern[:, None]).flatten(0, 1)).float()
        hits = (found.argmax(1) == self.targets).reshape(self.classes, BATCH).float().mean(1)
        norms = mask.flatten(1).sum(1)
        losses = cross_entropy(found, self.targets, reduction="none").reshape(self.classes, BATCH).mean(1)
        loss = (losses + self.weight * norms).sum()
        memory = min(_MEMORY, self.steps / (self.steps + 1))
        self.success, self.steps = memory * self.success + (1 - memory) * hits, self.steps + 1
        self._keep((hits >= goal) & (self.success >= goal), norms.detach(), mask.detach(), pattern.detach())
        heavier = torch.where(self.success >= goal, self.weight * _GROWTH, self.weight / _GROWTH)
        self.weight = heavier.clamp(_LIGHTEST, _HEAVIEST)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

    def found(self) -> Triggers:
        """What was kept."""
        return Triggers(self.kept_mask, self.kept_pattern, self.size.isfinite())

    def _start(self, shape: tuple[int, ...]) -> Tensor:
        start = _SPREAD * torch.randn(shape, generator=self.generator, device=self.x.device)
        return start.requires_grad_()

    def _values(self) -> Tensor:
        return self.limits.lower + (self.limits.upper - self.limits.lower) * torch.sigmoid(self.pattern)

    def _batch(self) -> Tensor:
        """Rows of other classes for each class: float32[K, BATCH, ...]."""
        device = self.x.device
        picks = [o[torch.randint(len(o), (BATCH,), generator=self.generator, device=device)] for o in self.others]
        return self.x[torch.stack(picks)]

    def _keep(self, good: Tensor, norms: Tensor, mask: Tensor, pattern: Tensor) -> None:
        better = good & (norms < self.size)
        self.size = torch.where(better, norms, self.size)
        self.kept_mask[better] = mask[better]
        self.kept_pattern[better] = pattern[better]
