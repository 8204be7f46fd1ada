"""Targeted Auto-PGD: Croce and Hein 2020, https://arxiv.org/abs/2003.01690, towards the wrong classes that are near."""

import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.model.attack.apgd import apgd
from holdfast.model.attack.losses import Ascent, TargetedDlr, correct, logits_at

APGD_STEPS = 100
SCOUT_STEPS, LIKELY_TARGETS = 25, 3
"""Steps towards each class, and to how many of the nearest classes all steps are then taken."""


def targeted_apgd(
    net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, targets: int, generator: torch.Generator
) -> Tensor:
    """Auto-PGD towards the `targets` most likely wrong classes of each example.

    Few steps towards every class show which ones come near; all steps are taken towards the nearest.
    """
    found = x.clone()
    order = ranked_targets(net, x, y, targets)
    near = torch.full(order.shape, -torch.inf, device=x.device)
    alive = correct(net, x, y).nonzero()[:, 0]
    for rank in range(targets):
        alive = _towards(net, (x, y, found), ball, alive, order[:, rank], SCOUT_STEPS, generator)
        near[alive, rank] = _closeness(net, found[alive], y[alive], order[alive, rank])
    for rank in range(min(LIKELY_TARGETS, targets)):
        likely = order.gather(1, near.argsort(1, descending=True))[:, rank]
        alive = _towards(net, (x, y, found), ball, alive, likely, APGD_STEPS, generator)
    return found


def ranked_targets(net: nn.Module, x: Tensor, y: Tensor, targets: int) -> Tensor:
    """int64[N, targets]: the wrong classes with the largest logits at x, the most likely first."""
    with torch.no_grad():
        z = logits_at(net, x)
    order: Tensor = z.scatter(1, y[:, None], -torch.inf).topk(targets, dim=1).indices
    return order


def _towards(
    net: nn.Module,
    batch: tuple[Tensor, Tensor, Tensor],
    ball: Ball,
    alive: Tensor,
    target: Tensor,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Auto-PGD of the examples `alive` towards their targets; writes what it found, returns those still correct."""
    x, y, found = batch
    if len(alive) == 0:
        return alive
    loss = TargetedDlr(target[alive])
    point = apgd(net, x[alive], y[alive], ball, Ascent(loss, steps), generator=generator)
    found[alive] = point
    remaining: Tensor = alive[correct(net, point, y[alive])]
    return remaining


def _closeness(net: nn.Module, x: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """float32[N]: how far the logit of the target is below that of y, negative."""
    with torch.no_grad():
        z = logits_at(net, x)
    below: Tensor = (z.gather(1, target[:, None]) - z.gather(1, y[:, None]))[:, 0]
    return below
