"""Square attack: Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049. It sees answers, never gradients.

A random square of the image (of a table: a random set of features) is moved to the border of the ball; the change is
kept when the margin grows. The squares shrink on the paper's schedule. For linf this is the paper's algorithm. For l2
each move gives a square all of the budget that the rest does not use, with random signs; the paper's decaying pattern
inside the square is left out.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.model.attack.losses import correct, logits_at, margin

START_SHARE = 0.8
"""p: share of the image that the first squares cover."""
HALVED_AT = (0.1, 0.3)
"""Shares of the queries after which the half of the remaining examples that is farther from a mistake is let go: what
a tenth of the queries did not bring near, the rest rarely breaks."""
FEWEST_TO_HALVE = 32
_SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries of 10,000 at which p is halved."""


@dataclass
class _Standing:
    """Examples that are not broken: their positions, x, y, the best point so far and its margin float32[n]."""

    rows: Tensor
    x: Tensor
    y: Tensor
    point: Tensor
    height: Tensor
    corners: tuple[Tensor, Tensor]
    """The lowest and the highest point of the ball."""

    def only(self, flags: Tensor) -> "_Standing":
        """Those of the flags bool[n]."""
        rows, x, y, point, height = (part[flags] for part in (self.rows, self.x, self.y, self.point, self.height))
        return _Standing(rows, x, y, point, height, (self.corners[0][flags], self.corners[1][flags]))


def square(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, queries: int, generator: torch.Generator) -> Tensor:
    """Adversarial examples in the ball around x `[N, ...]`; x itself where the network is wrong already."""
    found = x.clone()
    alive = correct(net, x, y).nonzero()[:, 0]
    if len(alive) == 0:
        return found
    left = _start(net, (x[alive], y[alive]), alive, ball, generator)
    halvings = {int(share * queries) for share in HALVED_AT}
    for query in range(queries):
        remaining = left.height <= 0
        if not bool(remaining.all()):
            found[left.rows[~remaining]] = left.point[~remaining]
            left = left.only(remaining)
        if query in halvings and len(left.y) >= FEWEST_TO_HALVE:
            near = left.height >= left.height.median()
            found[left.rows[~near]] = left.point[~near]
            left = left.only(near)
        if len(left.y) == 0:
            return found
        tried = ball.settle(_move(left, ball, share=covered(query, queries), generator=generator), left.x)
        value = _margin(net, tried, left.y)
        better = value > left.height
        left.point = torch.where(_wide(better, x), tried, left.point)
        left.height = torch.where(better, value, left.height)
    found[left.rows] = left.point
    return found


def _start(
    net: nn.Module, batch: tuple[Tensor, Tensor], rows: Tensor, ball: Ball, generator: torch.Generator
) -> _Standing:
    x, y = batch
    point = ball.settle(_stripes(x, ball, generator), x)
    reach = ball.epsilon * ball.scale * ball.mutable
    corners = (ball.project(x - reach, x), ball.project(x + reach, x))
    return _Standing(rows, x, y, point, _margin(net, point, y), corners)


def covered(query: int, queries: int) -> float:
    """Share of the image that the square of this query covers (appendix of the paper)."""
    of_paper = query / queries * 10_000
    return float(START_SHARE / 2 ** sum(of_paper > limit for limit in _SCHEDULE))


def _margin(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return margin(logits_at(net, x), y)


def _stripes(x: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
    """The paper's start: vertical stripes of +-eps; for tables random signs."""
    entries, places = x.shape[:2], x.shape[2:]
    shape = (*entries, *[1] * (len(places) - 1), *places[-1:])
    delta = _signs(shape, x, generator).expand(x.shape) / ball.diagonal(x)
    return ball.project(x + ball.epsilon * delta * ball.scale * ball.mutable, x)


def _move(left: _Standing, ball: Ball, *, share: float, generator: torch.Generator) -> Tensor:
    x, point = left.x, left.point
    window = _windows(x, share, generator)
    shape = (*x.shape[:2], *[1] * len(x.shape[2:]))
    up = torch.randint(0, 2, shape, generator=generator, device=x.device)
    return ball.push(point, x, window=window, up=up, corners=left.corners)


def _windows(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """bool[N, 1, H, W]: one random square per image; bool[N, D]: one random set of features per row."""
    places = x.shape[2:]
    if not places:
        keys = torch.rand(x.shape, generator=generator, device=x.device)
        return keys <= keys.kthvalue(max(1, round(share * x.shape[1])), dim=1).values[:, None]
    area = prod(places, start=share)
    side = max(1, min(round(area ** (1 / len(places))), *places))
    window = torch.ones((), dtype=torch.bool, device=x.device)
    for axis, size in enumerate(places):
        along = [size if other == axis else 1 for other in range(len(places))]
        window = window & _span(len(x), size, side, x, generator).reshape(-1, 1, *along)
    return window


def _span(count: int, size: int, side: int, x: Tensor, generator: torch.Generator) -> Tensor:
    """bool[count, size]: `side` neighbours beginning at a random place."""
    first = torch.randint(size - side + 1, (count, 1), generator=generator, device=x.device)
    at = torch.arange(size, device=x.device)[None]
    return (at >= first) & (at < first + side)


def _signs(shape: tuple[int, ...], x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator, device=x.device).to(x.dtype) * 2 - 1


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *([1] * (like.dim() - 1)))
