"""edits: at most epsilon characters of a message change. Messages are ids int64[N, L] (`holdfast.modality.text`)."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

import torch
from torch import Tensor

from holdfast.artifacts.documents import Norm
from holdfast.modality.ball import Ball
from holdfast.modality.text import HIDDEN, PAD, SYMBOLS, TYPED

UNLIMITED_EDITS = 64


@dataclass(frozen=True)
class Edits(Ball):
    """Messages that differ from x in at most epsilon characters."""

    norm: ClassVar[Norm] = "edits"
    attacks: ClassVar[Literal["gradient", "characters"]] = "characters"
    order: ClassVar[float] = 0

    typing: bool = False
    """Whether characters can also be inserted, left out and swapped with their neighbours."""

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """x with the first epsilon of the changes that lead to x_adv (int64[N, L] both)."""
        changed = (x_adv != x) & (x != PAD) & (x_adv != PAD)
        allowed = changed & (changed.cumsum(1) <= int(self.epsilon))
        return torch.where(allowed, x_adv, x)

    def random_start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Messages with epsilon random characters replaced."""
        return random_edits(x, int(self.epsilon), generator)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """bool[N]: whether each x_adv differs from x by at most epsilon edits."""
        if self.typing:
            pairs = zip(x_adv.tolist(), x.tolist(), strict=True)
            near = [edit_distance(a, b, most=int(self.epsilon)) <= int(self.epsilon) for a, b in pairs]
            return torch.tensor(near, device=x.device)
        changed = x_adv != x
        legal = ~changed | ((x != PAD) & (x_adv != PAD) & (x_adv >= 0) & (x_adv < SYMBOLS))
        return legal.all(1) & (changed.sum(1) <= int(self.epsilon))

    def with_noise(self, x: Tensor, noise: float, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """The chosen messages with that share of their characters hidden."""
        hidden = torch.rand(x.shape, generator=generator, device=x.device) < noise
        return x.masked_fill(hidden & chosen & (x != PAD), HIDDEN)

    def unlimited(self, x: Tensor) -> float:
        """More edits than a short message has characters."""
        return UNLIMITED_EDITS

    def epsilons(self, wanted: Iterable[Fraction]) -> tuple[Fraction, ...]:
        """Whole numbers of edits, each once."""
        return tuple(sorted({Fraction(int(epsilon)) for epsilon in wanted}))


def edit_distance(moved: list[int], ids: list[int], *, most: int) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that lead from `ids` to `moved`, both padded.

    Optimal string alignment (Damerau 1964); the result is at most `most` + 1, which means more than `most`. Where the
    message fills its length, what an insertion pushed beyond it is not counted.
    """
    full = PAD not in ids
    a, b = ([i for i in row if i != PAD] for row in (moved, ids))
    far = most + 1
    if abs(len(a) - len(b)) > most:
        return far
    before: list[int] = []
    row = [j if j <= most else far for j in range(len(b) + 1)]
    for i in range(1, len(a) + 1):
        next_row = [i if i <= most else far] + [far] * len(b)
        for j in range(max(1, i - most), min(len(b), i + most) + 1):
            cost = min(row[j] + 1, next_row[j - 1] + 1, row[j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                cost = min(cost, before[j - 2] + 1)
            next_row[j] = min(cost, far)
        before, row = row, next_row
    return min(row[-1 - most :]) if full else row[-1]


def random_edits(ids: Tensor, edits: int, generator: torch.Generator) -> Tensor:
    """Character ids int64[N, L] with `edits` random characters of each message replaced by typed ones."""
    order = torch.rand(ids.shape, generator=generator, device=ids.device).masked_fill(ids == PAD, -1.0)
    chosen = order.topk(min(edits, ids.shape[1]), dim=1).indices
    typed = torch.tensor(TYPED, device=ids.device)
    symbols = typed[torch.randint(len(TYPED), chosen.shape, generator=generator, device=ids.device)]
    return torch.where(ids == PAD, ids, ids.scatter(1, chosen, symbols))
