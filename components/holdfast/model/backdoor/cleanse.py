"""Trigger inversion: Neural Cleanse (Wang et al. 2019, https://doi.org/10.1109/SP.2019.00031).

For each class t the smallest mask m in [0, 1] and a pattern p are sought so that (1 - m) x + m p is answered with t for
almost every x of another class. All classes are inverted at once: one forward pass takes a batch for each of them.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from holdfast.modality.ball import Ball
from holdfast.model.backdoor.convolution import QuickInputGradients

BATCH = 16
"""Rows of other classes that each target sees in one step, unless told otherwise."""
_RATE, _BETAS = 0.2, (0.5, 0.9)
_MEMORY = 0.9
"""Largest weight of the past in the running success; the first steps are averaged evenly."""
_WEIGHT, _GROWTH = 1e-2, 1.05
"""The first weight of the mask's norm, and the factor by which it moves in a step."""
_LIGHTEST, _HEAVIEST = 1e-4, 10.0
_SPREAD = 0.1
_TINY = 1e-8
PATIENCE, SETTLED, ROUGHLY = 40, 0.05, 0.15
"""A size that fell by less than this share in that many steps has settled; roughly is enough for the larger half, which
is only there to be compared with."""


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
    targets: Sequence[int],
    goal: float,
    steps: Iterable[int],
    seed: int,
    batch: int = BATCH,
) -> Triggers:
    """The smallest triggers found that send `goal` of the rows of other classes to each of `targets`.

    A target whose size has settled leaves the search, which ends when all have left it.

    Args:
        net: Its weights are frozen.
        rows: x float32[N, ...] and y int64[N], with rows of at least two classes.
        limits: Where values may lie and which may change; its epsilon plays no part.
        targets: The K classes to invert, by index.
        goal: Share of rows, in the batch and in the running mean, from which on a mask is kept and weighs more.
        steps: One step of Adam for each.
        seed: Of the batches and of the start.
        batch: Rows of other classes that each target sees in one step.
    """
    search = _Search(rows, limits, targets, (seed, batch))
    for _ in steps:
        search.advance(net, goal)
        if len(search.live) == 0:
            break
    return search.found()


def stamp(x: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """The examples `[..., *shape]` with a trigger on them."""
    return (1 - mask) * x + mask * pattern


def mask_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The mask of inputs of this shape: one value for all channels of a place, or one per feature."""
    places = tuple(shape[1:])
    return (1, *places) if places else tuple(shape)


class _Search:
    """The state of an inversion; logit-scaled mask and pattern are what Adam moves."""

    def __init__(
        self, rows: tuple[Tensor, Tensor], limits: Ball, targets: Sequence[int], draw: tuple[int, int]
    ) -> None:
        (self.x, y), (seed, self.batch) = rows, draw
        device, shape, count = self.x.device, self.x.shape[1:], len(targets)
        self.limits = limits
        self.generator = torch.Generator(device).manual_seed(seed)
        flat = mask_shape(shape)
        self.mutable = limits.mutable.expand(flat)
        self.moved = _Adam([self._start((count, *flat)), self._start((count, *shape))])
        self.others = [(y != target).nonzero()[:, 0] for target in targets]
        self.targets = torch.tensor(list(targets), device=device)
        self.live = torch.arange(count, device=device)
        self.weight = torch.full((count,), _WEIGHT, device=device)
        self.success, self.steps = torch.zeros(count, device=device), 0
        self.size = torch.full((count,), torch.inf, device=device)
        self.past: deque[Tensor] = deque(maxlen=PATIENCE + 1)
        self.kept_mask = self.mutable.expand(count, *flat).clone()
        self.kept_pattern = self._values(self.moved.values[1]).detach()

    def advance(self, net: nn.Module, goal: float) -> None:
        """One step of Adam; a mask that is smaller than the one kept and reaches the goal takes its place."""
        live = self.live
        leaves = [value[live].requires_grad_() for value in self.moved.values]
        mask, pattern = torch.sigmoid(leaves[0]) * self.mutable, self._values(leaves[1])
        stamped = stamp(self._batch(), mask[:, None], pattern[:, None]).flatten(0, 1)
        with QuickInputGradients():
            found = net(stamped).float()
        wanted = self.targets[live].repeat_interleave(self.batch)
        hits = (found.argmax(1) == wanted).reshape(-1, self.batch).float().mean(1)
        norms = mask.flatten(1).sum(1)
        losses = cross_entropy(found, wanted, reduction="none").reshape(-1, self.batch).mean(1)
        gradients = torch.autograd.grad((losses + self.weight[live] * norms).sum(), leaves)
        memory = min(_MEMORY, self.steps / (self.steps + 1))
        self.success[live], self.steps = memory * self.success[live] + (1 - memory) * hits, self.steps + 1
        good = self.success[live] >= goal
        self._keep(good & (hits >= goal), norms.detach(), mask.detach(), pattern.detach())
        heavier = torch.where(good, self.weight[live] * _GROWTH, self.weight[live] / _GROWTH)
        self.weight[live] = heavier.clamp(_LIGHTEST, _HEAVIEST)
        self.moved.step(gradients, live)
        self.live = live[~self._settled()]

    def found(self) -> Triggers:
        """What was kept."""
        return Triggers(self.kept_mask, self.kept_pattern, self.size.isfinite())

    def _start(self, shape: tuple[int, ...]) -> Tensor:
        return _SPREAD * torch.randn(shape, generator=self.generator, device=self.x.device)

    def _values(self, pattern: Tensor) -> Tensor:
        return self.limits.lower + (self.limits.upper - self.limits.lower) * torch.sigmoid(pattern)

    def _batch(self) -> Tensor:
        """Rows of other classes for each target that is still sought: float32[L, batch, ...]."""
        others, device = [self.others[k] for k in self.live.tolist()], self.x.device
        picks = [o[torch.randint(len(o), (self.batch,), generator=self.generator, device=device)] for o in others]
        return self.x[torch.stack(picks)]

    def _keep(self, good: Tensor, norms: Tensor, mask: Tensor, pattern: Tensor) -> None:
        better = good & (norms < self.size[self.live])
        chosen = self.live[better]
        self.size[chosen] = norms[better]
        self.kept_mask[chosen], self.kept_pattern[chosen] = mask[better], pattern[better]
        self.past.append(self.size.clone())

    def _settled(self) -> Tensor:
        """bool[L]: whose size has stopped falling."""
        if len(self.past) <= PATIENCE:
            return torch.zeros_like(self.live, dtype=torch.bool)
        before = self.past[0][self.live]
        small = self.size <= self.size.kthvalue(max(1, len(self.size) // 2)).values
        fall = torch.where(small, SETTLED, ROUGHLY)[self.live]
        return before.isfinite() & (self.size[self.live] >= (1 - fall) * before)


class _Adam:
    """Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980); torch.optim takes three seconds to be imported."""

    def __init__(self, values: list[Tensor]) -> None:
        self.values, self.steps = values, 0
        self.first, self.second = ([torch.zeros_like(value) for value in values] for _ in range(2))

    def step(self, gradients: Sequence[Tensor], rows: Tensor) -> None:
        """Moves these rows of the values against their gradients."""
        self.steps += 1
        rate = _RATE * (1 - _BETAS[1] ** self.steps) ** 0.5 / (1 - _BETAS[0] ** self.steps)
        for value, first, second, gradient in zip(self.values, self.first, self.second, gradients, strict=True):
            first[rows] = first[rows].lerp(gradient, 1 - _BETAS[0])
            second[rows] = second[rows].lerp(gradient.square(), 1 - _BETAS[1])
            value[rows] -= rate * first[rows] / (second[rows].sqrt() + _TINY)
