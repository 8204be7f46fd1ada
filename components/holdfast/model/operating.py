"""The operating point of a network of two classes: the threshold above which it answers the positive one.

The margin of a row is the logit of the positive class less that of the other. Thresholds lie halfway between
neighbouring margins of the rows that they are chosen on, or one logit beyond all of them.

The rate of false positives is bounded as by the umbrella algorithm of Neyman-Pearson classification (Tong, Feng and
Li 2018, https://doi.org/10.1126/sciadv.aao1659): with probability 0.95 over the rows that the threshold is chosen on,
the rate on new rows of their distribution is at most the one asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log, log1p

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holdfast.artifacts.documents import Costs, Count, OperatingPoint
from holdfast.errors import WorkloadError
from holdfast.model.attack.hotflip import Embedding, has_embedding
from holdfast.model.networks import Cnn, Mlp, Text, logits
from holdfast.statistics import upper_bound
from holdfast.workload.schema import DecisionConfig

ALPHA = 0.05
"""Chance that the bound of the false-positive rate is below the true one."""
_BEYOND = 1.0
"""How far the outermost thresholds lie beyond all margins."""
_SAME_COST = 1e-12
"""Costs that differ by less, relative to them, differ by rounding alone."""

_Margins = NDArray[np.float64]
_Positives = NDArray[np.bool_]


@dataclass(frozen=True)
class Thresholds:
    """Every threshold that answers given rows differently, rising, with the wrong answers at each."""

    values: _Margins
    misses: NDArray[np.int64]
    """Positive rows at or below it."""
    false_alarms: NDArray[np.int64]
    """Other rows above it."""

    @classmethod
    def of(cls, margins: _Margins, positive: _Positives) -> "Thresholds":
        """The thresholds between the margins float64[N] of N > 0 rows, of which some are positive, bool[N]."""
        found = np.unique(margins)
        values = np.concatenate([[found[0] - _BEYOND], (found[:-1] + found[1:]) / 2, [found[-1] + _BEYOND]])
        own, other = np.sort(margins[positive]), np.sort(margins[~positive])
        return cls(values, own.searchsorted(values), len(other) - other.searchsorted(values))


def least_cost(margins: _Margins, positive: _Positives, costs: Costs) -> float:
    """The threshold whose wrong answers to these rows cost least; of several the one nearest to 0, then the lower."""
    at = Thresholds.of(margins, positive)
    total = costs.miss * at.misses + costs.false_alarm * at.false_alarms
    cheapest = at.values[total <= total.min() * (1 + _SAME_COST)]
    return float(cheapest[np.abs(cheapest).argmin()])


def bounded_rate(margins: _Margins, positive: _Positives, rate: float) -> float:
    """The lowest threshold, which finds most, of those whose false-positive rate is bounded by `rate`.

    There is none with fewer than `negatives_needed` other rows.
    """
    at, negatives = Thresholds.of(margins, positive), int((~positive).sum())
    return float(at.values[at.false_alarms <= most_false_alarms(negatives, rate)][0])


def most_false_alarms(negatives: int, rate: float) -> int:
    """The largest k of that many rows whose upper 95 % bound is at most `rate`; -1 when not even 0 is."""
    k = 0
    while k <= negatives and upper_bound(k, negatives, ALPHA) <= rate:
        k += 1
    return k - 1


def negatives_needed(rate: float) -> int:
    """How many rows without a false alarm show that the rate is at most `rate`."""
    enough = ceil(log(ALPHA) / log1p(-rate))
    return enough if upper_bound(0, enough, ALPHA) <= rate else enough + 1


def check_rows(decision: DecisionConfig, classes: Sequence[str], y: NDArray[np.int64]) -> None:
    """Refuses rows of the classes y int64[N] that an operating point cannot be chosen on.

    Raises:
        WorkloadError: not two classes, the positive one is not among them, or too few rows of either.
    """
    positive = decision.index_in(classes)
    counts = np.bincount(y, minlength=2)
    if not counts.all():
        raise WorkloadError(
            f"decision: expected rows of both classes among the {len(y)} training rows set apart, found none of "
            f"{classes[int(counts.argmin())]!r}; raise train.selection_rows or deliver more rows"
        )
    rate, found = decision.false_positive_rate, int(counts[1 - positive])
    if rate is not None and found < (needed := negatives_needed(rate)):
        raise WorkloadError(
            f"decision.false_positive_rate {rate:g}: expected at least {needed} rows of {classes[1 - positive]!r} "
            f"among the {len(y)} training rows set apart, which it takes to show such a rate, found {found}; raise "
            "train.selection_rows (at most a fifth of the training rows), deliver more rows, or ask for a higher rate"
        )


def set_operating_point(
    net: nn.Module, x: Tensor, y: Tensor, *, decision: DecisionConfig, classes: Sequence[str]
) -> tuple[nn.Module, OperatingPoint]:
    """The network with the threshold inside that the rule chooses on the rows x `[N, ...]`, y int64[N].

    Raises:
        WorkloadError: as `check_rows`.
    """
    labels, positive = y.cpu().numpy(), decision.index_in(classes)
    check_rows(decision, classes, labels)
    own = labels == positive
    found = _logits(net, x).astype(np.float64)
    threshold = _chosen(found[:, positive] - found[:, 1 - positive], own, decision)
    moved = with_threshold(net, positive, threshold)
    answers = _logits(moved, x).argmax(axis=1) == positive
    point = OperatingPoint(
        positive=decision.positive,
        threshold=threshold,
        costs=decision.costs,
        false_positive_rate=decision.false_positive_rate,
        misses=Count(k=int((own & ~answers).sum()), n=int(own.sum())),
        false_alarms=Count(k=int((~own & answers).sum()), n=int((~own).sum())),
    )
    return moved, point


def rule_of(point: OperatingPoint) -> DecisionConfig:
    """The rule by which an operating point was chosen, for choosing it again."""
    return DecisionConfig(positive=point.positive, costs=point.costs, false_positive_rate=point.false_positive_rate)


def with_threshold(net: nn.Module, positive: int, threshold: float) -> nn.Module:
    """A network of two classes that answers the positive one when its margin in `net` is above the threshold.

    A built-in network is changed in its last bias, so that it keeps its layers; any other is wrapped.
    """
    if type(net) in (Cnn, Mlp, Text):
        with torch.no_grad():
            net.last.bias[positive] -= threshold  # type: ignore[union-attr,operator,index]
        return net
    shift = torch.zeros(2, device=next((p.device for p in net.parameters()), None))
    shift[positive] = -threshold
    return (ShiftedEmbedding if has_embedding(net) else Shifted)(net, shift).train(net.training)


class Shifted(nn.Module):
    """A user's network whose logits are moved by constants."""

    shift: Tensor

    def __init__(self, network: nn.Module, shift: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, classes]."""
        out: Tensor = self.network(x) + self.shift
        return out


class ShiftedEmbedding(Shifted):
    """The same for a network that shows its embedding (`attack.hotflip.Embedding`)."""

    network: Embedding  # type: ignore[assignment]

    def embed(self, ids: Tensor) -> Tensor:
        """float32[N, L, E]."""
        return self.network.embed(ids)

    def forward_embedded(self, embedded: Tensor) -> Tensor:
        """Logits float32[N, classes]."""
        return self.network.forward_embedded(embedded) + self.shift


def _chosen(margins: _Margins, positive: _Positives, decision: DecisionConfig) -> float:
    if decision.costs is not None:
        return least_cost(margins, positive, decision.costs)
    assert decision.false_positive_rate is not None  # one of the two is given
    return bounded_rate(margins, positive, decision.false_positive_rate)


def _logits(net: nn.Module, x: Tensor) -> NDArray[np.float32]:
    return logits(net, x.cpu().numpy(), device=x.device.type)
