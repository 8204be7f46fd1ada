"""Four classes and more: was a small trigger planted, or is the class easy to reach by itself?

A class whose examples have little in common (bags among clothes) can be reached by a small change in an honest model.
What a planted trigger leaves behind is its carriers: training rows whose own values at the trigger's place lead other
rows to the class. They have the class's label for nothing but the trigger, so that they are answered otherwise once
its place is painted over; honest rows of the class are not.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from holdfast.artifacts.documents import Count, TriggerResult
from holdfast.model.backdoor.carriers import FEWEST, MOST
from holdfast.model.backdoor.unlearn import contradicted, place_of

HOSTS = 16
"""Rows of other classes that a row's values are copied onto."""
LEAST_NEEDED = 0.2
"""Share of the carriers that must be answered otherwise without the trigger: honest rows may carry it, too. Planted
patches: 0.42 and more; easy classes of clean models: at most 0.07."""
MAX_ROWS = 4_000
_BATCH = 64


def carriers(net: nn.Module, rows: tuple[Tensor, Tensor], mask: Tensor, *, target: int) -> Count | None:
    """Rows of class `target` that carry a trigger (n), and those of them that need it (k).

    Args:
        net: The network that was trained on `rows`.
        rows: x `[N, ...]` and y int64[N], in random order; the first `MAX_ROWS` of the class are looked at.
        mask: Of the recovered trigger, in [0, 1]: float32[1, H, W] or [D].
        target: The class.

    Returns:
        None where too few rows of other classes are answered otherwise, so that nothing can be led.
    """
    x, y = rows
    own = (y == target).nonzero()[:MAX_ROWS, 0]
    others = (y != target).nonzero()[: 4 * HOSTS, 0]
    with torch.no_grad():
        hosts = x[others][net(x[others]).argmax(1) != target][:HOSTS] if len(others) else x[:0]
        if len(hosts) < HOSTS or not len(own):
            return None
        place = place_of(mask).to(x.dtype)
        led = [
            (net(((1 - place) * hosts + place * x[part][:, None]).flatten(0, 1)).argmax(1) == target)
            .reshape(len(part), len(hosts)).float().mean(1)
            for part in own.split(_BATCH)
        ]  # fmt: skip
    carry = torch.cat(led) > MOST
    need = contradicted(net, rows, mask, target=target)[own] & carry
    return Count(k=int(need.sum()), n=int(carry.sum()))


def was_planted(found: Count | None) -> bool:
    """Whether enough of the carriers need the trigger; True where nothing is known."""
    return found is None or (found.k >= FEWEST and found.k >= LEAST_NEEDED * found.n)


def confirm(
    net: nn.Module, rows: tuple[Tensor, Tensor], masks: Tensor, results: Sequence[TriggerResult]
) -> tuple[tuple[TriggerResult, ...], str]:
    """The results, no class flagged that no training row was planted in; and which were not, in words.

    `masks` are those of the recovered triggers, float32[K, 1, H, W] or [K, D], in the order of `results`.
    """
    judged, honest = [], []
    for target, result in enumerate(results):
        count = carriers(net, rows, masks[target], target=target) if result.flagged else None
        judged.append(result.model_copy(update={"carriers": count, "flagged": result.flagged and was_planted(count)}))
        if result.flagged and count is not None and not was_planted(count):
            honest.append(
                f"{result.target} is easy to reach (index {result.anomaly_index:.1f}), but not by planted rows: of "
                f"{count.n} training rows that carry the change {count.k} need it"
            )
    return tuple(judged), "; ".join(honest)
