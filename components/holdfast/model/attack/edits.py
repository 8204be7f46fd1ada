"""Random character edits: a black-box search that sees answers, never gradients.

Random search as in Square (Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049), with characters for squares:
one edit is replaced by another at a random place and kept when the margin grows.
"""

import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.modality.edits import random_edits
from holdfast.modality.text import PAD, TYPED
from holdfast.model.attack.losses import correct, margin


def search_edits(
    net: nn.Module, ids: Tensor, y: Tensor, ball: Ball, *, queries: int, generator: torch.Generator
) -> Tensor:
    """Messages int64[N, L] within the ball's edits; a message that is answered wrongly stays as it is."""
    edits = int(ball.epsilon)
    found = ids.clone()
    alive = correct(net, ids, y).nonzero()[:, 0]
    if len(alive) == 0 or edits == 0:
        return found
    point = random_edits(ids[alive], edits, generator)
    height = _margin(net, point, y[alive])
    for _ in range(queries):
        found[alive] = point
        remaining = height <= 0
        point, height, alive = point[remaining], height[remaining], alive[remaining]
        if len(alive) == 0:
            return found
        tried = _another(point, ids[alive], edits, generator)
        value = _margin(net, tried, y[alive])
        better = value > height
        point, height = torch.where(better[:, None], tried, point), torch.where(better, value, height)
    found[alive] = point
    return found


def _margin(net: nn.Module, ids: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return margin(net(ids).float(), y)


def _another(point: Tensor, ids: Tensor, edits: int, generator: torch.Generator) -> Tensor:
    """Each message with one more edit, and one of the others taken back when the budget is used up."""
    keys = torch.rand(ids.shape, generator=generator, device=ids.device)
    place = keys.masked_fill(ids == PAD, -1.0).argmax(1, keepdim=True)
    typed = torch.tensor(TYPED, device=ids.device)
    symbols = typed[torch.randint(len(TYPED), (len(ids), 1), generator=generator, device=ids.device)]
    changed = (point != ids).scatter(1, place, False)
    full = changed.sum(1, keepdim=True) >= edits
    dropped = torch.rand(ids.shape, generator=generator, device=ids.device).masked_fill(~changed, -1.0).argmax(1, True)
    original = torch.where(full, ids.gather(1, dropped), point.gather(1, dropped))
    tried = point.scatter(1, dropped, original).scatter(1, place, symbols)
    return torch.where(ids == PAD, ids, tried)
