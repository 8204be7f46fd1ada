"""Projected gradient descent: Madry et al. 2018, https://arxiv.org/abs/1706.06083.

Random starts in the ball, steps of 2.5 eps / steps along the steepest ascent of the loss, projected after each.
"""

import torch
from torch import Tensor, nn

from holdfast.model.attack.losses import Loss, climb_direction, correct, cross_entropy
from holdfast.model.threat import Ball

STEP_FACTOR = 2.5
"""A walk of `steps` steps may cross the ball's radius this many times (section 4 of the paper)."""


def pgd(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int,
    restarts: int,
    loss: Loss,
    generator: torch.Generator,
) -> Tensor:
    """Adversarial examples in the ball around x `[N, ...]`; x itself where the network is wrong already.

    An example that is broken leaves the batch. Where no restart breaks it, the last point is returned.
    """
    found = x.clone()
    alive = correct(net, x, y).nonzero()[:, 0]
    for _ in range(restarts):
        if len(alive) == 0:
            break
        alive = _restart(net, (found, x, y), ball, alive, steps, loss, generator)
    return found


def perturb(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, steps: int, generator: torch.Generator) -> Tensor:
    """One walk of every example to the end: the inner maximization of adversarial training."""
    point = ball.random_start(x, generator)
    for _ in range(steps):
        gradient, _, _ = climb_direction(net, point, y, cross_entropy)
        point = ball.project(ball.ascend(point, gradient, STEP_FACTOR * ball.epsilon / steps), x)
    return point


def _restart(
    net: nn.Module,
    batch: tuple[Tensor, Tensor, Tensor],
    ball: Ball,
    alive: Tensor,
    steps: int,
    loss: Loss,
    generator: torch.Generator,
) -> Tensor:
    """One walk of the examples `alive`; writes what it found and returns those that still stand."""
    found, x, y = batch
    point = ball.random_start(x[alive], generator)
    for _ in range(steps):
        gradient, _, z = climb_direction(net, point, y[alive], loss)
        point, alive, gradient = _set_aside(found, point, alive, gradient, z.argmax(1) == y[alive])
        if len(alive) == 0:
            return alive
        point = ball.project(ball.ascend(point, gradient, STEP_FACTOR * ball.epsilon / steps), x[alive])
    found[alive] = point
    return alive[correct(net, point, y[alive])]


def _set_aside(
    found: Tensor, point: Tensor, alive: Tensor, gradient: Tensor, standing: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    found[alive] = point
    return point[standing], alive[standing], gradient[standing]
