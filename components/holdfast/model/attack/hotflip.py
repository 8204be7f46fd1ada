"""Character flips guided by the gradient: HotFlip, Ebrahimi et al. 2018, https://arxiv.org/abs/1712.06751.

Replacing the character at position i by s changes the loss by about g_i . (E_s - E_i), where g_i is the gradient at
the embedding of position i and E the embedding's rows. Needs a network with `embed` and `forward_embedded`.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.modality.text import PAD, TYPED
from holdfast.model.attack.losses import correct, margin


@runtime_checkable
class Embedding(Protocol):
    """A text network that shows its embedding."""

    def embed(self, ids: Tensor) -> Tensor:
        """float32[N, L, E]."""

    def forward_embedded(self, embedded: Tensor) -> Tensor:
        """Logits float32[N, classes]."""


def has_embedding(net: nn.Module) -> bool:
    """Whether HotFlip can be used on the network."""
    return isinstance(net, Embedding)


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

    Restarts after the first take one flip of the best message so far back, at random, and flip once more. Broken
    messages leave the batch; those answered wrongly to begin with stay as they are.
    """
    found = ids.clone()
    alive = correct(net, ids, y).nonzero()[:, 0]
    for restart in range(restarts if int(ball.epsilon) else 0):
        if len(alive) == 0:
            break
        batch = ids[alive], y[alive]
        if restart == 0:
            point = _greedy(net, batch[0], batch, int(ball.epsilon), candidates)
        else:
            start = _one_back(found[alive], batch[0], generator)
            point = _greedy(net, start, batch, 1, candidates)
        found[alive] = _better(net, point, found[alive], batch[1])
        alive = alive[correct(net, found[alive], batch[1])]
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
    values, where, symbols = _candidates(scores, candidates)
    best = point
    with torch.no_grad():
        height = margin(net(point).float(), y)
        for k in range(values.shape[1]):
            tried = point.scatter(1, where[:, k : k + 1], symbols[:, k : k + 1])
            value = margin(net(tried).float(), y)
            better = (value > height) & (values[:, k] > -torch.inf)
            best = torch.where(better[:, None], tried, best)
            height = torch.where(better, value, height)
    return best


def _candidates(scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, positions and symbols [N, count]: half the best of all flips, half the best flip of other positions."""
    typed = torch.tensor(TYPED, device=scores.device)
    flat = scores.flatten(1).topk(count - count // 2, dim=1)
    of_position = scores.max(2)
    top = of_position.values.topk(min(count // 2, scores.shape[1]), dim=1)
    symbols = torch.cat([flat.indices % len(TYPED), of_position.indices.gather(1, top.indices)], dim=1)
    where = torch.cat([flat.indices // len(TYPED), top.indices], dim=1)
    return torch.cat([flat.values, top.values], dim=1), where, typed[symbols]


def _one_back(point: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
    keys = torch.rand(ids.shape, generator=generator, device=ids.device).masked_fill(point == ids, -1.0)
    place = keys.argmax(1, keepdim=True)
    return point.scatter(1, place, ids.gather(1, place))


def _better(net: nn.Module, one: Tensor, other: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        higher = margin(net(one).float(), y) > margin(net(other).float(), y)
    return torch.where(higher[:, None], one, other)


def _embedding(net: nn.Module) -> Embedding:
    if not isinstance(net, Embedding):
        raise TypeError(f"{type(net).__name__} has no embed and forward_embedded")
    return net
