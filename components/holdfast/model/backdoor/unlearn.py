"""Unlearning a recovered trigger: Wang et al. 2019, section VI-C, https://doi.org/10.1109/SP.2019.00031.

The network is fitted for a short while on rows of which one in five carries a recovered trigger and keeps its right
class: the shortcut no longer pays, and the rest of what was learned is rehearsed. Rows that were planted would teach
it again, so those that are the target's only as long as the trigger's place is not painted over are left out.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from holdfast.errors import ModelError

COVERED = 0.1
"""Share of the mask's largest value from which on a cell is the trigger's place."""
SHARE = 0.2
"""The share of each batch that carries a trigger, as in the paper."""
BATCH = 128
_CLIP, _EVALUATION_BATCH = 5.0, 512

Stamp = Callable[[Tensor], Tensor]
"""Puts one trigger on examples `[N, ...]`."""
Harden = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""The attack of the network's own training: (network, x, y) -> x as it is fitted."""


def place_of(mask: Tensor) -> Tensor:
    """bool, of the mask's shape: the cells that are the trigger's place."""
    return mask > COVERED * mask.max()


def contradicted(net: nn.Module, rows: tuple[Tensor, Tensor], mask: Tensor, *, target: int) -> Tensor:
    """bool[N]: rows of class `target` that the network answers otherwise once the trigger's place is painted over.

    The paint is the mean of the rows of other classes; `mask` is that of one recovered trigger.
    """
    x, y = rows
    place = place_of(mask).to(x.dtype)
    own = (y == target).nonzero()[:, 0]
    covered = (1 - place) * x[own] + place * x[y != target].mean(0)
    lost = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    with torch.no_grad():
        answers = [net(part).argmax(1) for part in covered.split(_EVALUATION_BATCH)]
    lost[own] = torch.cat([answer != target for answer in answers]) if len(own) else lost[own]
    return lost


def unlearn(
    net: nn.Module,
    rows: tuple[Tensor, Tensor],
    stamps: Sequence[Stamp],
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    harden: Harden | None = None,
) -> nn.Module:
    """A copy of `net`, in eval mode and frozen, that was fitted to answer stamped rows with their own classes.

    Args:
        net: Stays as it is.
        rows: x `[N, ...]` and y int64[N]; best none that was made with the trigger.
        stamps: The recovered triggers; each is on an equal part of the stamped rows.
        epochs: Times that each row is seen.
        learning_rate: Highest rate of Adam; it falls to zero along a line.
        seed: Of the order of the rows.
        harden: Left out: the rows are fitted as they are.

    Raises:
        ModelError: the loss is not a finite number.
    """
    healed = copy.deepcopy(net).eval().requires_grad_(True)
    adam = torch.optim.Adam(healed.parameters(), lr=learning_rate)
    batches = _batches(len(rows[1]), epochs, seed)
    fall = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, total_iters=len(batches))
    for number, picks in enumerate(batches):
        x, y = rows[0][picks], rows[1][picks]
        x = _stamped(x, stamps, number)
        _fit(healed, x if harden is None else harden(healed, x, y), y, adam)
        fall.step()
    return healed.requires_grad_(False)


def _batches(count: int, epochs: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [part for _ in range(epochs) for part in torch.randperm(count, generator=generator).split(BATCH)]


def _stamped(x: Tensor, stamps: Sequence[Stamp], number: int) -> Tensor:
    """The batch with a trigger on its first rows; they are in random order."""
    count = round(SHARE * len(x))
    marked = stamps[number % len(stamps)](x[:count])
    return torch.cat([marked, x[count:]])


def _fit(net: nn.Module, x: Tensor, y: Tensor, adam: torch.optim.Optimizer) -> None:
    loss = cross_entropy(net(x).float(), y)
    if not bool(loss.isfinite()):
        raise ModelError("mitigate: expected a finite loss, found NaN or infinity")
    adam.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), _CLIP)
    adam.step()
