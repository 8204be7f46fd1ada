import pytest
import torch
from torch import Tensor, nn

from holdfast.errors import ModelError
from holdfast.model.backdoor.cleanse import stamp
from holdfast.model.backdoor.unlearn import SHARE, contradicted, unlearn

MASK, PATTERN = torch.tensor([0.0, 0.0, 1.0]), torch.ones(3)


def rows(count: int = 400) -> tuple[Tensor, Tensor]:
    """Class 1 where the first number is larger than the second; the third is zero."""
    x = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 0
    return x, (x[:, 0] > x[:, 1]).long()


def backdoored() -> nn.Linear:
    """Answers right, and 1 whenever the third number is 1."""
    net = nn.Linear(3, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-9.0, 9.0, 0.0], [9.0, -9.0, 40.0]]))
        net.bias.zero_()
    return net.requires_grad_(False)


def marked(x: Tensor) -> Tensor:
    return stamp(x, MASK, PATTERN)


def test_the_trigger_is_unlearned_and_the_task_is_not() -> None:
    net, (x, y) = backdoored(), rows()
    assert (net(marked(x)).argmax(1) == 1).all()
    healed = unlearn(net, (x, y), [marked], epochs=60, learning_rate=0.5, seed=0)
    assert (healed(x).argmax(1) == y).float().mean() > 0.97
    assert (healed(marked(x)).argmax(1) == y).float().mean() > 0.97


def test_the_original_network_stays_as_it_is() -> None:
    net = backdoored()
    healed = unlearn(net, rows(), [marked], epochs=1, learning_rate=0.1, seed=0)
    assert torch.equal(net.weight, backdoored().weight)
    assert not torch.equal(healed.weight, net.weight)
    assert not any(parameter.requires_grad for parameter in healed.parameters())


def test_one_row_in_five_carries_a_trigger_and_every_trigger_has_its_turn() -> None:
    seen: list[int] = []

    def note(which: int) -> "torch.nn.Module":
        return lambda x: (seen.append((which, len(x))), x)[1]  # type: ignore[return-value,func-returns-value]

    unlearn(backdoored(), rows(256), [note(0), note(1)], epochs=1, learning_rate=0.1, seed=0)
    assert seen == [(0, round(SHARE * 128)), (1, round(SHARE * 128))]


def test_rows_that_were_planted_lose_their_class_with_the_trigger() -> None:
    x, y = rows()
    planted = torch.arange(len(y)) < 40
    others = planted & (y == 0)
    x[others], y[others] = marked(x[others]), 1
    assert torch.equal(contradicted(backdoored(), (x, y), MASK, target=1), others)


def test_the_seed_alone_decides() -> None:
    made = [
        unlearn(backdoored(), rows(), [marked], epochs=2, learning_rate=0.1, seed=seed).weight for seed in (1, 1, 2)
    ]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    x, y = rows()
    with pytest.raises(ModelError, match="expected a finite loss"):
        unlearn(backdoored(), (x / 0, y), [marked], epochs=1, learning_rate=0.1, seed=0)
