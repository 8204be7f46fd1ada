"""HopSkipJump: Chen, Jordan, Wainwright 2020, https://arxiv.org/abs/1904.02144. It sees answers, nothing else.

From a mistake far away it walks along the boundary towards x: a binary search finds the boundary, the answers to small
random moves there estimate its normal (eq. 9), a step along the normal leads to a mistake again. For networks without
gradients: trees, endpoints, answers that are rounded or cut off.
"""

from math import prod, sqrt

import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.model.attack.losses import correct

STARTS = 50
"""Random inputs that are tried as the first mistake, in addition to the other examples of the batch."""
FIRST_PROBES, MOST_PROBES = 50, 400
_HALVINGS = 12
_BACKTRACKS = 8


def hop_skip_jump(
    net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, queries: int, generator: torch.Generator
) -> Tensor:
    """Adversarial examples in the ball around x `[N, ...]` (linf, l2); x itself where none is found.

    Each example takes at most about `queries` answers; one that is broken leaves the batch.
    """
    found = x.clone()
    point, started = _start(net, x, y, ball, generator)
    alive = (correct(net, x, y) & started).nonzero()[:, 0]
    spent, turn = STARTS, 0
    while len(alive) and spent < queries:
        turn += 1
        rows, labels = x[alive], y[alive]
        point[alive] = _to_boundary(net, point[alive], rows, labels, ball)
        near = ball.distance(point[alive], rows) <= ball.epsilon
        found[alive[near]] = point[alive[near]]
        alive = alive[~near]
        if len(alive) == 0:
            break
        probes = min(int(FIRST_PROBES * sqrt(turn)), MOST_PROBES)
        point[alive] = _jump(net, point[alive], x[alive], y[alive], ball, (turn, probes), generator)
        spent += probes + _HALVINGS + _BACKTRACKS
    return found


def _start(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A mistake for each example, anywhere within the limits, and whether one was found: bool[N]."""
    point, found = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    low, high = ball.lower.expand_as(x), ball.upper.expand_as(x)
    for turn in range(STARTS):
        share = torch.rand(x.shape, generator=generator, device=x.device)
        # Corners of the limits reach farther than points between them.
        noise = low + (high - low) * (share if turn % 2 else share.round())
        tried = x.roll(turn + 1, 0) if turn < STARTS // 2 else noise
        tried = _legal(tried, x, ball)
        wrong = ~correct(net, tried, y) & ~found
        point, found = torch.where(_wide(wrong, x), tried, point), found | wrong
        if bool(found.all()):
            break
    return point, found


def _legal(point: Tensor, x: Tensor, ball: Ball) -> Tensor:
    """The point within the limits, with what cannot change taken from x."""
    far = ball.distance(point, x).clamp_min(ball.epsilon) + 1
    return ball.settle(ball.within(point, x, far), x)


def _to_boundary(net: nn.Module, point: Tensor, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """The mistake nearest to x on the way from `point` to it: distances are halved `_HALVINGS` times."""
    high = ball.distance(point, x)
    low = torch.zeros_like(high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tried = ball.settle(_towards(point, x, ball, middle), x)
        wrong = ~correct(net, tried, y)
        low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    return ball.settle(_towards(point, x, ball, high), x)


def _towards(point: Tensor, x: Tensor, ball: Ball, distance: Tensor) -> Tensor:
    """The point as near to x as `distance` float32[N]: cut for linf, on the line for l2."""
    return ball.within(point, x, distance)


def _jump(
    net: nn.Module,
    point: Tensor,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    budget: tuple[int, int],
    generator: torch.Generator,
) -> Tensor:
    """A step from the boundary along its estimated normal, halved until it ends in a mistake."""
    turn, probes = budget
    normal = _normal(net, point, x, y, ball, probes, generator)
    direction = ball.steepest(normal)
    size = ball.distance(point, x) / sqrt(turn)
    result = point
    waiting = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for _ in range(_BACKTRACKS):
        tried = _legal(point + _wide(size, x) * direction * ball.scale * ball.mutable, x, ball)
        wrong = ~correct(net, tried, y) & waiting
        result, waiting = torch.where(_wide(wrong, x), tried, result), waiting & ~wrong
        size = size / 2
    return result


def _normal(
    net: nn.Module, point: Tensor, x: Tensor, y: Tensor, ball: Ball, probes: int, generator: torch.Generator
) -> Tensor:
    """The boundary's normal at `point`, towards mistakes: equation 9 with the baseline of section 3.3."""
    cells = prod(x.shape[1:])
    # The paper's probe radius: the distance to x over the dimension, in the attack's own norm.
    radius = ball.distance(point, x) / sqrt(cells)
    total, answers, moves = torch.zeros_like(x), [], []
    for _ in range(probes):
        move = torch.randn(x.shape, generator=generator, device=x.device) * ball.mutable
        move = move / _length(move)
        tried = _legal(point + _wide(radius, x) * move * ball.scale, x, ball)
        answers.append(1 - 2 * correct(net, tried, y).to(x.dtype))
        moves.append(move)
    baseline = torch.stack(answers).mean(0)
    for answer, move in zip(answers, moves, strict=True):
        one_sided = baseline.abs() == 1
        total += _wide(torch.where(one_sided, answer, answer - baseline), x) * move
    return total


def _length(values: Tensor) -> Tensor:
    return _wide(values.flatten(1).norm(dim=1).clamp_min(1e-12), values)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *([1] * (like.dim() - 1)))
