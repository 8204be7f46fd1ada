"""Fast minimum-norm attack: Pintor et al. 2021, https://arxiv.org/abs/2102.12827.

Walks along the boundary and shrinks: where the point is a mistake its norm bound falls by a share gamma, where it is
not it grows. It asks how near the nearest mistake is, which attacks of a fixed radius do not, and needs no loss that
saturates: it takes the place that FAB (Croce and Hein 2020, https://arxiv.org/abs/1907.02044) has in AutoAttack.
"""

from math import cos, pi

import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.model.attack.losses import climb_direction, correct, margin

GAMMA, LAST_GAMMA = 0.05, 1e-3
LAST_STEP = 1e-2
_REACH = 2.0
"""The bound never grows beyond so many epsilon: mistakes farther away do not count."""


def fmn(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, steps: int) -> Tensor:
    """Adversarial examples in the ball around x `[N, ...]`; x itself where none nearer than epsilon was found."""
    found = x.clone()
    alive = correct(net, x, y).nonzero()[:, 0]
    if len(alive):
        found[alive] = _walk(net, x[alive], y[alive], ball, steps)
    return found


def _walk(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, steps: int) -> Tensor:
    point, found = x, x
    bound = torch.full((len(x),), torch.inf, device=x.device)
    best = torch.full_like(bound, torch.inf)
    for step in range(steps):
        settled = ball.settle(point, x)
        gradient, height, _ = climb_direction(net, settled, y, margin)
        gradient, length = gradient * ball.scale * ball.mutable, ball.distance(settled, x)
        wrong = height > 0
        better = wrong & (length < best)
        found, best = torch.where(_wide(better, x), settled, found), torch.where(better, length, best)
        fall = LAST_GAMMA + (GAMMA - LAST_GAMMA) * _cosine(step, steps)
        bound = _bound(bound, wrong, best, fall, -height / ball.dual(gradient).clamp_min(1e-12))
        bound = bound.clamp(max=_REACH * ball.epsilon)
        unit = gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(_shape(x))
        move = LAST_STEP + (1 - LAST_STEP) * _cosine(step, steps)
        point = ball.within(point + move * unit * ball.scale, x, bound)
    return torch.where(_wide(best <= ball.epsilon, x), found, x)


def _bound(bound: Tensor, wrong: Tensor, best: Tensor, fall: float, linear: Tensor) -> Tensor:
    """The next norm bound; until there is a mistake, the distance at which a linear network would make one."""
    grown = torch.where(best.isfinite(), bound * (1 + fall), (bound.nan_to_num(posinf=0) + linear).clamp_min(0))
    return torch.where(wrong, torch.minimum(bound, best) * (1 - fall), grown)


def _cosine(step: int, steps: int) -> float:
    return (1 + cos(pi * step / steps)) / 2


def _shape(x: Tensor) -> tuple[int, ...]:
    return (-1, *([1] * (x.dim() - 1)))


def _wide(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(_shape(like))
