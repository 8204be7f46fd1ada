"""Auto-PGD: Croce and Hein 2020, https://arxiv.org/abs/2003.01690, section 3.

Gradient steps with momentum whose size needs no tuning: it starts at 2 eps and is halved, going back to the best point,
when at a checkpoint too few steps gained (condition 1) or neither size nor best loss changed (condition 2).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.model.attack.losses import Ascent, Loss, climb_direction, correct, cross_entropy, only

MOMENTUM = 0.75
RHO = 0.75
"""Condition 1: at least this share of the steps since the last checkpoint must have gained."""
REACH = 15.0
"""A walk ends, from the second checkpoint on, where the margin is farther from a mistake than so many times the last
period's gain. The paper walks on; what that saves is measured in benchmarks/attacks.py, together with the accuracy."""


def apgd(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, ascent: Ascent, *, generator: torch.Generator) -> Tensor:
    """Adversarial examples in the ball around x `[N, ...]`; x itself where the network is wrong already."""
    found = x.clone()
    alive = correct(net, x, y).nonzero()[:, 0]
    for _ in range(ascent.restarts):
        if len(alive) == 0:
            break
        point = _climb(net, (x[alive], y[alive]), ball, ascent, generator)
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
    """The state of each example's walk; float32[N] but for the points and gradients `[N, ...]`."""

    rows: Tensor
    """int64[N]: positions in the batch."""
    x: Tensor
    y: Tensor
    point: Tensor
    before: Tensor
    gradient: Tensor
    best: Tensor
    best_gradient: Tensor
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

    def end(self, ball: Ball) -> Tensor:
        """A point that fools the network where there is one, the best point elsewhere."""
        return torch.where(_wide(self.fooled, self.x), self.broken, ball.settle(self.best, self.x))


def _climb(
    net: nn.Module, batch: tuple[Tensor, Tensor], ball: Ball, ascent: Ascent, generator: torch.Generator
) -> Tensor:
    loss, steps = ascent.loss, ascent.steps
    walk = _begin(net, batch, ball, loss, generator)
    result = walk.broken.clone()
    judged, since = checkpoints(steps), 0
    for step in range(1, steps + 1):
        _advance(walk, ball, first=step == 1)
        _look(net, walk, ball, loss)
        if step not in judged:
            continue
        done = walk.fooled | _out_of_reach(walk) if since and loss is not cross_entropy else walk.fooled
        _judge(walk, step - since)
        since = step
        if bool(done.any()):
            result[walk.rows[done]] = walk.only(done).end(ball)
            walk, loss = walk.only(~done), only(loss, ~done)
        if len(walk.rows) == 0:
            return result
    result[walk.rows] = walk.end(ball)
    return result


def _begin(net: nn.Module, batch: tuple[Tensor, Tensor], ball: Ball, loss: Loss, generator: torch.Generator) -> _Walk:
    x, y = batch
    start = ball.random_start(x, generator)
    settled = ball.settle(start, x)
    gradient, height, z = climb_direction(net, settled, y, loss)
    return _Walk(
        rows=torch.arange(len(x), device=x.device),
        x=x,
        y=y,
        point=start,
        before=start,
        gradient=gradient,
        best=start,
        best_gradient=gradient,
        best_loss=height,
        broken=settled,
        fooled=z.argmax(1) != y,
        size=torch.full_like(height, 2 * ball.epsilon),
        gains=torch.zeros_like(height),
        last_loss=height,
        last_best=height,
        last_halved=torch.ones_like(height, dtype=torch.bool),
    )


def _advance(walk: _Walk, ball: Ball, *, first: bool) -> None:
    """Equation 1 of the paper: a projected step, mixed with the last move."""
    stepped = ball.project(ball.ascend(walk.point, walk.gradient, walk.size), walk.x)
    share = 1.0 if first else MOMENTUM
    mixed = walk.point + share * (stepped - walk.point) + (1 - share) * (walk.point - walk.before)
    walk.before, walk.point = walk.point, ball.project(mixed, walk.x)


def _look(net: nn.Module, walk: _Walk, ball: Ball, loss: Loss) -> None:
    """Asks the network about the point and remembers what is new."""
    settled = ball.settle(walk.point, walk.x)
    walk.gradient, height, z = climb_direction(net, settled, walk.y, loss)
    wrong = z.argmax(1) != walk.y
    walk.broken = torch.where(_wide(wrong & ~walk.fooled, settled), settled, walk.broken)
    walk.fooled = walk.fooled | wrong
    walk.gains = walk.gains + (height > walk.last_loss)
    walk.last_loss = height
    better = height > walk.best_loss
    wide = _wide(better, settled)
    walk.best, walk.best_loss = torch.where(wide, walk.point, walk.best), torch.where(better, height, walk.best_loss)
    walk.best_gradient = torch.where(wide, walk.gradient, walk.best_gradient)


def _out_of_reach(walk: _Walk) -> Tensor:
    """bool[N]: where a loss that is 0 at a mistake lies farther below 0 than `REACH` times the last period's gain.

    Steps only shrink from period to period, so later periods gain less than the last one did.
    """
    gained = (walk.best_loss - walk.last_best).clamp_min(0)
    return walk.best_loss < -REACH * gained - 1e-6


def _judge(walk: _Walk, taken: int) -> None:
    """Halves the step size of those that go back to their best point."""
    few = walk.gains < RHO * taken
    stuck = ~walk.last_halved & (walk.last_best >= walk.best_loss)
    halved = few | stuck
    walk.size = torch.where(halved, walk.size / 2, walk.size)
    wide = _wide(halved, walk.point)
    walk.point, walk.before = torch.where(wide, walk.best, walk.point), torch.where(wide, walk.best, walk.before)
    walk.gradient = torch.where(wide, walk.best_gradient, walk.gradient)
    walk.last_loss = torch.where(halved, walk.best_loss, walk.last_loss)
    walk.last_halved, walk.last_best, walk.gains = halved, walk.best_loss, torch.zeros_like(walk.gains)


def _wide(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *([1] * (like.dim() - 1)))
