"""Randomized ablation of characters (Levine and Feizi 2020, https://arxiv.org/abs/1911.09272), for messages.

g(x) is the class that the network answers most often when only k of the m characters of x are left, chosen uniformly,
and the others are hidden. Replacing r characters changes the network's answer at a sample only when one of them is
among the k: with probability Delta(r) = 1 - C(m - r, k) / C(m, k). If p is a lower bound of the top class's
probability, then g cannot change while p - Delta(r) > 1/2. The guarantee is about replaced characters, not about
inserted or deleted ones.
"""

from collections.abc import Callable
from math import ceil, comb

import torch
from torch import Tensor

from holdfast.modality.text import HIDDEN, PAD
from holdfast.model.certify.smoothing import Draw, RadiusOf


def characters(ids: Tensor) -> int:
    """How many characters a message int64[L] has."""
    return int((ids != PAD).sum())


def kept(share: float, m: int) -> int:
    """How many of m characters stay visible: at least one where there is one."""
    return min(m, max(1, round(share * m)))


def ablation(share: float, generator: torch.Generator) -> Draw:
    """Draws copies of messages with all but `kept` of their characters hidden."""

    def draw(ids: Tensor, n: int) -> Tensor:
        padded = (ids == PAD)[:, None]
        order = torch.rand((len(ids), n, ids.shape[1]), generator=generator, device=ids.device)
        rank = order.masked_fill(padded, 2.0).argsort(dim=2).argsort(dim=2)
        shown = torch.tensor([kept(share, characters(message)) for message in ids], device=ids.device)
        return torch.where((rank < shown[:, None, None]) | padded, ids[:, None], HIDDEN)

    return draw


def touched(m: int, k: int, r: int) -> float:
    """Delta(r): the probability that k kept of m characters include one of r given ones."""
    return 1 - comb(m - r, k) / comb(m, k) if r <= m else 1.0


def ablation_threshold(share: float, ids: Tensor) -> Callable[[float], float]:
    """r -> 1/2 + Delta(r): what p must exceed for r replaced characters of the message int64[L]."""
    m = characters(ids)
    k = kept(share, m)
    return lambda r: 0.5 + touched(m, k, ceil(r))


def ablation_radius(share: float, ids: Tensor) -> RadiusOf:
    """p -> the most characters r that may be replaced while p - Delta(r) > 1/2, for p > 1/2."""
    m = characters(ids)
    k = kept(share, m)

    def radius(p: float) -> float:
        r = 0
        while r < m and p - touched(m, k, r + 1) > 0.5:
            r += 1
        return float(r)

    return radius
