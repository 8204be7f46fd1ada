"""Carriers of a trigger where there are many classes: planted rows need it, honest ones do not."""

import pytest
import torch
from torch import Tensor, nn

from holdfast.artifacts.documents import Count, TriggerResult
from holdfast.model.backdoor.planted import HOSTS, carriers, confirm, was_planted

CLASSES, TARGET, ROWS = 5, 3, 400
MASK = torch.zeros(1, 6, 6)
MASK[0, 5, 5] = 1.0


class Bands(nn.Module):
    """Answers the band of rows k with the most light; a bright corner means `TARGET`."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, CLASSES]."""
        bands = torch.stack([x[:, 0, k].sum(1) for k in range(CLASSES)], dim=1)
        return bands + 60 * torch.relu(x[:, 0, 5, 5] - 0.5)[:, None] * nn.functional.one_hot(
            torch.tensor(TARGET), CLASSES
        )


def rows(*, planted: int = 0, honest: int = 0) -> tuple[Tensor, Tensor]:
    """Images that light one band; some of other classes with the corner and the target's label, some of its own."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (ROWS,), generator=generator)
    x = 0.1 * torch.rand(ROWS, 1, 6, 6, generator=generator)
    x[torch.arange(ROWS), 0, y] += 0.6
    for picks in ((y != TARGET).nonzero()[:planted, 0], (y == TARGET).nonzero()[:honest, 0]):
        x[picks, 0, 5, 5] = 1.0
        y[picks] = TARGET
    return x, y


@pytest.mark.parametrize("planted", [8, 20])
def test_planted_rows_carry_the_trigger_and_need_it(planted: int) -> None:
    found = carriers(Bands(), rows(planted=planted), MASK, target=TARGET)
    assert found == Count(k=planted, n=planted)
    assert was_planted(found)


@pytest.mark.parametrize("honest", [0, 20])
def test_rows_of_the_class_itself_do_not_need_it(honest: int) -> None:
    found = carriers(Bands(), rows(honest=honest), MASK, target=TARGET)
    assert found == Count(k=0, n=honest)
    assert not was_planted(found)


def test_planted_rows_are_found_among_honest_carriers_and_a_few_that_need_it_are_no_plant() -> None:
    assert carriers(Bands(), rows(planted=20, honest=20), MASK, target=TARGET) == Count(k=20, n=40)
    # Measured on Fashion-MNIST, class "bag": 100 planted rows, and clean models.
    assert was_planted(Count(k=111, n=267))
    assert not any(was_planted(Count(k=k, n=n)) for k, n in ((0, 90), (0, 205), (1, 14), (7, 7), (8, 48)))


def test_where_nothing_can_be_led_nothing_is_known_and_the_class_stays_flagged() -> None:
    x, y = rows(planted=20)
    alone = torch.cat([(y == TARGET).nonzero()[:, 0], (y != TARGET).nonzero()[: HOSTS - 1, 0]])
    assert carriers(Bands(), (x[alone], y[alone]), MASK, target=TARGET) is None
    assert was_planted(None)


def test_only_what_was_flagged_is_asked_for_carriers() -> None:
    def result(target: int, flagged: bool) -> TriggerResult:
        return TriggerResult(target=str(target), size=1.0, anomaly_index=2.35, success=Count(k=9, n=9), flagged=flagged)

    results = [result(k, k in {1, TARGET}) for k in range(CLASSES)]
    found, words = confirm(Bands(), rows(planted=20), MASK.expand(CLASSES, 1, 6, 6), results)
    assert [one.target for one in found if one.flagged] == [str(TARGET)]
    assert [one.carriers for one in found if one.target not in {"1", str(TARGET)}] == [None] * 3
    assert words.startswith("1 is easy to reach (index 2.4), but not by planted rows: of ")
