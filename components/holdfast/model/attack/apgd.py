"""Auto-PGD: Croce and Hein 2020, https://arxiv.org/abs/2003.01690, section 3.

Gradient steps with momentum whose size needs no tuning: it starts at 2 eps and is halved, going back to the best point,
when at a checkpoint too few steps gained (condition 1) or neither size nor best loss changed (condition 2).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from holdfast.model.attack.losses import Loss, climb_direction, correct, cross_entropy, only
from holdfast.model.threat import Ball

MOMENTUM = 0.75
RHO = 0.75
"""Condition 1: at least this share of the steps since the last checkpoint must have gained."""
REACH = 15.0
"""From the second checkpoint on a walk ends where the margin is farther from a mistake than so many times what the last
period gained. The paper walks on; what that saves is measured in benchmarks/attacks.py, beside the accuracy."""


def apgd(
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
    """Adversarial examples in the ball around x `[N, ...]`; x itself where the network is wrong already."""
    found = x.clone()
    alive = correct(net, x, y).nonzero()[:, 0]
    for _ in range(restarts):
        if len(alive) == 0:
            break
        point = _climb(net, (x[alive], y[alive]), ball, steps=steps, loss=loss, generator=generator)
        found[alive] = point
        alive = alive[correct(net, point, y[alive])]
    return found


def checkpoints(steps: int) -> list[int]:
    """Steps at which the step size is judged: p_0 = 0, p_1 = 0.22, gaps shrinking by 0.03 down to 0.06."""
    hundredths = [0, 22]
    while hundredths[-1] < 100:
        hundredths.append(hundredths[-1] + max(hundredths[-1] - hundredths[-2] - 3, 6))
    return sorted({-(-share * steps // 100) for share in hundredths if 0 < share <= 100})


@dataclass
class _Walk:
    """Where each example stands; float32[N] but for the points `[N, ...]`."""

    point: Tensor
    before: Tensor
    best: Tensor
    best_loss: Tensor
    broken: Tensor
    """Points that fool the network; the start's where there is none yet."""
    fooled: Tensor
    """bool[N]: where there is one."""
    size: Tensor
    gains: Tensor
    """Steps since the last checkpoint that raised the loss."""
    last_loss: Tensor
    last_best: Tensor
    last_halved: Tensor

    def only(self, flags: Tensor) -> "_Walk":
        """Those of the flags bool[N]."""
        return _Walk(**{name: value[flags] for name, value in vars(self).items()})


def _climb(
    net: nn.Module, batch: tuple[Tensor, Tensor], ball: Ball, *, steps: int, loss: Loss, generator: torch.Generator
) -> Tensor:
    x, y = batch
    start = ball.random_start(x, generator)
    settled = ball.settle(start, x)
    gradient, height, z = climb_direction(net, settled, y, loss)
    walk = _begin(start, height, ball)
    walk.broken, walk.fooled = settled, z.argmax(1) != y
    result, rows = settled.clone(), torch.arange(len(x), device=x.device)
    judged, since = checkpoints(steps), 0
    best_gradient = gradient
    for step in range(1, steps + 1):
        _advance(walk, gradient, ball, x, first=step == 1)
        settled = ball.settle(walk.point, x)
        gradient, height, z = climb_direction(net, settled, y, loss)
        wrong = z.argmax(1) != y
        walk.broken = torch.where(_wide(wrong & ~walk.fooled, x), settled, walk.broken)
        walk.fooled = walk.fooled | wrong
        best_gradient = torch.where(_wide(height > walk.best_loss, x), gradient, best_gradient)
        _remember(walk, height)
        if step in judged:
            gained = walk.best_loss - walk.last_best
            halved = _judge(walk, step - since)
            gradient = torch.where(_wide(halved, x), best_gradient, gradient)
            done = walk.fooled | (
                _out_of_reach(walk.best_loss, gained) if since and loss is not cross_entropy else False
            )
            since = step
            if bool(done.any()):
                result[rows[done]] = _end(walk, ball, x)[done]
                rows, x, y, loss = rows[~done], x[~done], y[~done], only(loss, ~done)
                gradient, best_gradient, walk = gradient[~done], best_gradient[~done], walk.only(~done)
                if len(rows) == 0:
                    return result
    result[rows] = _end(walk, ball, x)
    return result


def _end(walk: "_Walk", ball: Ball, x: Tensor) -> Tensor:
    """A point that fools the network where there is one, the best point elsewhere."""
    return torch.where(_wide(walk.fooled, x), walk.broken, ball.settle(walk.best, x))


def _out_of_reach(height: Tensor, gained: Tensor) -> Tensor:
    """bool[N]: where a loss that is 0 at a mistake lies farther below 0 than `REACH` times the last period's gain.

    Steps only shrink from period to period, so later periods gain less than the last one did.
    """
    return height < -REACH * gained.clamp_min(0) - 1e-6


def _begin(start: Tensor, height: Tensor, ball: Ball) -> _Walk:
    zeros = torch.zeros_like(height)
    size = torch.full_like(height, 2 * ball.epsilon)
    return _Walk(
        point=start,
        before=start,
        best=start,
        best_loss=height,
        broken=start,
        fooled=torch.zeros_like(height, dtype=torch.bool),
        size=size,
        gains=zeros,
        last_loss=height,
        last_best=height,
        last_halved=torch.ones_like(height, dtype=torch.bool),
    )


def _advance(walk: _Walk, gradient: Tensor, ball: Ball, x: Tensor, *, first: bool) -> None:
    """Equation 1 of the paper: a projected step, mixed with the last move."""
    stepped = ball.project(ball.ascend(walk.point, gradient, walk.size), x)
    share = 1.0 if first else MOMENTUM
    mixed = walk.point + share * (stepped - walk.point) + (1 - share) * (walk.point - walk.before)
    walk.before, walk.point = walk.point, ball.project(mixed, x)


def _remember(walk: _Walk, height: Tensor) -> None:
    walk.gains = walk.gains + (height > walk.last_loss)
    walk.last_loss = height
    better = height > walk.best_loss
    walk.best = torch.where(_wide(better, walk.point), walk.point, walk.best)
    walk.best_loss = torch.where(better, height, walk.best_loss)


def _judge(walk: _Walk, taken: int) -> Tensor:
    """bool[N]: whose step size was halved, going back to the best point."""
    few = walk.gains < RHO * taken
    stuck = ~walk.last_halved & (walk.last_best >= walk.best_loss)
    halved = few | stuck
    walk.size = torch.where(halved, walk.size / 2, walk.size)
    wide = _wide(halved, walk.point)
    walk.point, walk.before = torch.where(wide, walk.best, walk.point), torch.where(wide, walk.best, walk.before)
    walk.last_loss = torch.where(halved, walk.best_loss, walk.last_loss)
    walk.last_halved, walk.last_best, walk.gains = halved, walk.best_loss, torch.zeros_like(walk.gains)
    return halved


def _wide(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *([1] * (like.dim() - 1)))
