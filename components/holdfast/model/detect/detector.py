"""Detectors: how far the model's answers to an input and to the squeezed input lie apart, and from where that is much.

The limit is a conformal one: of n held-out rows the ceil((n + 1)(1 - rate))-th smallest score, so that a user's row,
drawn like them, is above it with probability at most `rate` (Vovk et al. 2005).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from holdfast.model.attack.losses import logits_at
from holdfast.model.attack.suite import in_batches
from holdfast.model.detect.squeezers import Squeezer, passed

_LEAST = 1e-6


@dataclass(frozen=True)
class SqueezeDetector:
    """One squeezer's, or the joint one of several: the largest of their scores, each in units of what is usual."""

    name: str
    network: nn.Module
    squeezers: tuple[Squeezer, ...]
    usual: tuple[float, ...] = (1.0,)
    """What each squeezer's distances are divided by."""
    limit: float = math.inf
    """A row with a larger score is suspicious."""

    def logits(self, x: Tensor) -> Tensor:
        """float32[1 + squeezers, N, classes] of rows x `[N, ...]` as they are, then squeezed by each; has gradients."""
        return torch.stack([logits_at(self.network, rows) for rows in (x, *(passed(one, x) for one in self.squeezers))])

    def scores(self, logits: Tensor) -> Tensor:
        """float32[N] of such logits: the largest L1 distance of probabilities, each divided by what is usual."""
        plain, *squeezed = logits.softmax(2)
        apart = [(p - plain).abs().sum(1) / usual for p, usual in zip(squeezed, self.usual, strict=True)]
        return torch.stack(apart).amax(0)

    def suspects(self, x: Tensor) -> Tensor:
        """bool[N]: the rows that are above the limit."""
        return measured(self, x) > self.limit


def measured(detector: SqueezeDetector, x: Tensor) -> Tensor:
    """float32[N]: scores of rows, some at a time, without gradients."""

    def score(rows: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            return detector.scores(detector.logits(rows))

    return in_batches(score, x, torch.zeros(len(x), dtype=torch.int64, device=x.device))


def conformal_limit(scores: Tensor, rate: float) -> float:
    """The limit that a row drawn like these passes with probability at most `rate`.

    Raises:
        ValueError: too few scores for this rate: fewer than 1 / rate - 1.
    """
    place = math.ceil((len(scores) + 1) * (1 - rate))
    if place > len(scores):
        raise ValueError(f"expected at least {fewest(rate)} rows for a rate of {rate:g}, found {len(scores)}")
    return float(scores.sort().values[place - 1])


def fewest(rate: float) -> int:
    """Rows that a limit of this rate needs."""
    return math.ceil(1 / rate) - 1


def calibrated(
    network: nn.Module, squeezers: Sequence[Squeezer], usual: Tensor, rate: float
) -> tuple[SqueezeDetector, ...]:
    """A detector of each squeezer and, of several, the joint one, with limits from the rows `usual` `[N, ...]`.

    One half of the rows shows what is usual for each squeezer, the other half sets the limits.
    """
    first, second = usual[: len(usual) // 2], usual[len(usual) // 2 :]
    alone = [SqueezeDetector(one.name, network, (one,)) for one in squeezers]
    found = [_limited(one, second, rate) for one in alone]
    if len(alone) > 1:
        scales = tuple(max(conformal_limit(measured(one, first), rate), _LEAST) for one in alone)
        found.append(_limited(SqueezeDetector("joint", network, tuple(squeezers), scales), second, rate))
    return tuple(found)


def _limited(detector: SqueezeDetector, rows: Tensor, rate: float) -> SqueezeDetector:
    return replace(detector, limit=conformal_limit(measured(detector, rows), rate))
