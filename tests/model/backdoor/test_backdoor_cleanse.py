from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.modality.linf import Linf
from holdfast.model.backdoor.cleanse import PATIENCE, invert, stamp

CLASSES = 5
SHAPE = (1, 6, 6)
TARGET, CORNER = 3, (0, -1, -1)


class Brightest(nn.Module):
    """Answers the band of rows k with the most light; with a shortcut, one bright corner pixel means `TARGET`."""

    def __init__(self, *, shortcut: float) -> None:
        super().__init__()
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, CLASSES]."""
        bands = torch.stack([x[:, 0, k, :-1].sum(1) for k in range(CLASSES)], dim=1)
        corner = self.shortcut * torch.relu(x[:, 0, -1, -1] - 0.2)
        return bands + corner[:, None] * nn.functional.one_hot(torch.tensor(TARGET), CLASSES)


def rows() -> tuple[Tensor, Tensor]:
    """Images that light one band, with noise; the corner is dark."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(200) % CLASSES
    x = 0.3 * torch.rand(200, *SHAPE, generator=generator)
    x[torch.arange(200), 0, y, :-1] += 0.6
    x[(slice(None), *CORNER)] = 0
    return x, y


def limits() -> Ball:
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    return Linf(epsilon=0.1, lower=zero, upper=one, scale=one, mutable=one)


def test_a_planted_trigger_is_recovered_where_it_was_planted() -> None:
    found = invert(
        Brightest(shortcut=60), rows(), limits(), targets=range(CLASSES), goal=0.97, steps=range(200), seed=0
    )
    assert found.sizes.argmin() == TARGET
    assert found.mask[TARGET].flatten().argmax() == 35
    assert found.sizes[TARGET] < 0.5 * found.sizes[torch.arange(CLASSES) != TARGET].min()


def test_without_it_no_class_is_much_easier_than_the_others() -> None:
    found = invert(Brightest(shortcut=0), rows(), limits(), targets=range(CLASSES), goal=0.97, steps=range(200), seed=0)
    assert found.sizes.min() > 0.7 * found.sizes.median()


def test_what_is_kept_reaches_the_goal() -> None:
    x, y = rows()
    net = Brightest(shortcut=60)
    found = invert(net, (x, y), limits(), targets=range(CLASSES), goal=0.97, steps=range(200), seed=0)
    for target in range(CLASSES):
        answers = net(stamp(x[y != target], found.mask[target], found.pattern[target])).argmax(1)
        assert found.reached[target]
        assert (answers == target).float().mean() > 0.9


def test_a_class_that_no_change_reaches_is_said_to_be_unreached() -> None:
    class Never(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.mean((1, 2, 3)), x.mean((1, 2, 3)) - 1], dim=1)

    x, y = rows()
    found = invert(Never(), (x, y % 2), limits(), targets=range(2), goal=0.97, steps=range(20), seed=0)
    assert found.reached.tolist() == [True, False]
    assert found.sizes[1] == 36


def test_cells_that_nobody_can_change_stay_out_of_the_mask() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.sum(1), -x.sum(1)], dim=1)

    x = torch.linspace(-1, 1, 80).reshape(20, 4)
    ball = Linf(
        epsilon=0.1,
        lower=torch.full((4,), -9.0),
        upper=torch.full((4,), 9.0),
        scale=torch.ones(4),
        mutable=torch.tensor([1.0, 0.0, 1.0, 0.0]),
    )
    found = invert(Sum(), (x, (x.sum(1) < 0).long()), ball, targets=range(2), goal=0.97, steps=range(50), seed=0)
    assert found.mask[:, [1, 3]].max() == 0
    assert found.pattern.abs().max() <= 9


def test_the_seed_alone_decides() -> None:
    net = Brightest(shortcut=60)
    made = [
        invert(net, rows(), limits(), targets=range(CLASSES), goal=0.97, steps=range(30), seed=seed)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(made[0].mask, made[1].mask)
    assert not torch.equal(made[0].pattern, made[2].pattern)


def test_the_search_ends_when_the_sizes_have_settled() -> None:
    taken = []

    def steps() -> Iterator[int]:
        for step in range(1000):
            taken.append(step)
            yield step

    found = invert(Brightest(shortcut=60), rows(), limits(), targets=range(CLASSES), goal=0.97, steps=steps(), seed=0)
    assert PATIENCE < len(taken) < 400
    assert found.reached.all()


def test_one_class_alone_is_inverted_as_among_others() -> None:
    net = Brightest(shortcut=60)
    alone = invert(net, rows(), limits(), targets=[TARGET], goal=0.97, steps=range(200), seed=0)
    among = invert(net, rows(), limits(), targets=range(CLASSES), goal=0.97, steps=range(200), seed=0)
    assert alone.mask.shape == (1, 1, 6, 6)
    assert alone.sizes[0] == pytest.approx(float(among.sizes[TARGET]), rel=0.3)
