"""Projected gradient descent: Madry et al. 2018, https://arxiv.org/abs/1706.06083.

Random starts in the ball, steps of 2.5 eps / steps along the steepest ascent of the loss, projected after each.
"""

import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.model.attack.losses import Ascent, climb_direction, correct, cross_entropy, logits_at, margin

STEP_FACTOR = 2.5
"""A walk of `steps` steps may cross the ball's radius this many times (section 4 of the paper)."""
OUT_OF_REACH, SPREAD_AT = 3.0, 0.9
"""Restarts end for an example whose best margin is below minus three times the 90th percentile of how far two restarts
of the batch lie apart. The honesty check "more-steps-gain" attacks all that remain once more, with more steps."""
FEWEST_TO_JUDGE = 32


def pgd(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, ascent: Ascent, *, generator: torch.Generator) -> Tensor:
    """Adversarial examples in the ball around x `[N, ...]`; x itself where the network is wrong already.

    An example that is broken leaves the batch, and after two restarts one that no further restart can break: whose
    best margin lies `OUT_OF_REACH` times as far from 0 as margins differ between restarts. Where nothing breaks an
    example, the last point is returned.
    """
    found = x.clone()
    alive = correct(net, x, y).nonzero()[:, 0]
    heights: list[Tensor] = []
    for _ in range(ascent.restarts):
        if len(alive) == 0:
            break
        left, height = _restart(net, (found, x, y), ball, alive, ascent, generator)
        remaining = torch.isin(alive, left)
        heights = [past[remaining] for past in heights] + [height]
        alive = left
        if len(heights) > 1:
            near = ~_out_of_reach(torch.stack(heights))
            alive, heights = alive[near], [past[near] for past in heights]
    return found


def _out_of_reach(heights: Tensor) -> Tensor:
    """bool[N]: where margins float32[restarts, N], all negative, are far below 0 for how much restarts move them."""
    apart = (heights[-1] - heights[-2]).abs()
    if len(apart) < FEWEST_TO_JUDGE:
        return torch.zeros_like(apart, dtype=torch.bool)
    return heights.amax(0) < -OUT_OF_REACH * apart.quantile(SPREAD_AT)


def perturb(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, steps: int, generator: torch.Generator) -> Tensor:
    """One walk of every example to the end: the inner maximization of adversarial training."""
    point = ball.random_start(x, generator)
    for _ in range(steps):
        gradient, _, _ = climb_direction(net, ball.settle(point, x), y, cross_entropy)
        point = ball.project(ball.ascend(point, gradient, STEP_FACTOR * ball.epsilon / steps), x)
    return ball.settle(point, x)


def _restart(
    net: nn.Module,
    batch: tuple[Tensor, Tensor, Tensor],
    ball: Ball,
    alive: Tensor,
    ascent: Ascent,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """One walk of the examples `alive`; writes what it found; returns the remaining ones and their margins."""
    found, x, y = batch
    point, x, y = ball.random_start(x[alive], generator), x[alive], y[alive]
    for _ in range(ascent.steps):
        settled = ball.settle(point, x)
        gradient, _, z = climb_direction(net, settled, y, ascent.loss)
        remaining = z.argmax(1) == y
        if not bool(remaining.all()):
            found[alive[~remaining]] = settled[~remaining]
            if not bool(remaining.any()):
                return alive[remaining], margin(z, y)[remaining]
            point, alive, gradient, x, y = (part[remaining] for part in (point, alive, gradient, x, y))
        point = ball.project(ball.ascend(point, gradient, STEP_FACTOR * ball.epsilon / ascent.steps), x)
    settled = ball.settle(point, x)
    found[alive] = settled
    with torch.no_grad():
        z = logits_at(net, settled)
    remaining = z.argmax(1) == y
    return alive[remaining], margin(z, y)[remaining]
