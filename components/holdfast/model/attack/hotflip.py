"""Character flips guided by the gradient: HotFlip, Ebrahimi et al. 2018, https://arxiv.org/abs/1712.06751.

Replacing the character at position i by s changes the loss by about g_i . (E_s - E_i), where g_i is the gradient at
the embedding of position i and E the embedding's rows. Needs a network with `embed` and `forward_embedded`.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from holdfast.model.attack.losses import correct, margin
from holdfast.model.inputs import PAD, TYPED
from holdfast.model.threat import Ball, random_edits


@runtime_checkable
class Embedding(Protocol):
    """A text network that shows its embedding."""

    def embed(self, ids: Tensor) -> Tensor:
        """float32[N, L, E]."""

    def forward_embedded(self, embedded: Tensor) -> Tensor:
        """Logits float32[N, classes]."""


def flip_scores(net: Embedding, ids: Tensor, y: Tensor) -> Tensor:
    """First-order gain in margin of each replacement: float32[N, L, len(TYPED)]; -inf on padding."""
    embedded = net.embed(ids).detach().requires_grad_()
    values = margin(net.forward_embedded(embedded).float(), y)
    gradient = torch.autograd.grad(values.sum(), embedded)[0]
    typed = torch.tensor(TYPED, device=ids.device)
    with torch.no_grad():
        rows = net.embed(typed[None])[0]
        gain = gradient @ rows.T - (gradient * embedded).sum(2, keepdim=True)
    gain = gain.masked_fill((ids == PAD)[:, :, None], -torch.inf)
    return gain.masked_fill(ids[:, :, None] == typed, -torch.inf)


def flip_at_once(net: Embedding, ids: Tensor, y: Tensor, edits: int) -> Tensor:
    """The `edits` most promising positions int64[N, L] all flipped after one gradient."""
    if edits == 0:
        return ids
    best = flip_scores(net, ids, y).max(2)
    chosen = best.values.topk(min(edits, ids.shape[1]), dim=1)
    typed = torch.tensor(TYPED, device=ids.device)
    symbols = typed[best.indices.gather(1, chosen.indices)]
    symbols = symbols.where(chosen.values > -torch.inf, ids.gather(1, chosen.indices))
    return ids.scatter(1, chosen.indices, symbols)


def hotflip(
    net: nn.Module,
    ids: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    candidates: int,
    restarts: int,
    generator: torch.Generator,
) -> Tensor:
    """Greedy flips: each round tries the `candidates` most promising ones and keeps the best.

    Restarts after the first begin with one random flip. Broken messages leave the batch; wrong ones stay as they are.
    """
    found = ids.clone()
    alive = correct(net, ids, y).nonzero()[:, 0]
    for restart in range(restarts):
        if len(alive) == 0 or int(ball.epsilon) == 0:
            break
        start = random_edits(ids[alive], min(restart, 1), generator)
        point = _greedy(net, start, (ids[alive], y[alive]), int(ball.epsilon) - min(restart, 1), candidates)
        found[alive] = point
        alive = alive[correct(net, point, y[alive])]
    return found


def _greedy(net: nn.Module, point: Tensor, batch: tuple[Tensor, Tensor], rounds: int, candidates: int) -> Tensor:
    ids, y = batch
    for _ in range(rounds):
        scores = flip_scores(_embedding(net), point, y)
        scores = scores.masked_fill((point != ids)[:, :, None], -torch.inf)
        point = _best_flip(net, point, y, scores, candidates)
    return point


def _best_flip(net: nn.Module, point: Tensor, y: Tensor, scores: Tensor, candidates: int) -> Tensor:
    """Each message with the one flip that raises its margin most, of the `candidates` best-scored ones."""
    top = scores.flatten(1).topk(candidates, dim=1)
    typed = torch.tensor(TYPED, device=point.device)
    best = point
    with torch.no_grad():
        height = margin(net(point).float(), y)
        for k in range(candidates):
            where, symbol = top.indices[:, k] // len(TYPED), typed[top.indices[:, k] % len(TYPED)]
            tried = point.scatter(1, where[:, None], symbol[:, None])
            value = margin(net(tried).float(), y)
            better = (value > height) & (top.values[:, k] > -torch.inf)
            best = torch.where(better[:, None], tried, best)
            height = torch.where(better, value, height)
    return best


def _embedding(net: nn.Module) -> Embedding:
    if not isinstance(net, Embedding):
        raise TypeError(f"{type(net).__name__} has no embed and forward_embedded")
    return net
