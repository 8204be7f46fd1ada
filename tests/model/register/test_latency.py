"""How long an answer takes, by a clock of the test's own."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.model.register.latency import FEWEST, MOST, WARM_UP, measure, typical


class Clock:
    """Goes on by what an answer takes, each time one is given."""

    def __init__(self, takes: Iterator[float]) -> None:
        self.now, self.takes, self.answers = 0.0, takes, 0

    def __call__(self) -> float:
        return self.now

    def answer(self) -> None:
        self.answers += 1
        self.now += next(self.takes)


def test_the_time_is_the_median_and_the_first_answers_do_not_count() -> None:
    clock = Clock(iter([9.0] * WARM_UP + [0.2, 0.1, 0.3, 0.2, 5.0]))
    assert typical(clock.answer, clock) == pytest.approx(0.2)
    assert clock.answers == WARM_UP + FEWEST


def test_quick_answers_are_asked_for_often_and_not_forever() -> None:
    clock = Clock(iter([1e-4] * 1000))
    assert typical(clock.answer, clock) == pytest.approx(1e-4)
    assert clock.answers == WARM_UP + MOST


def test_one_row_and_a_batch_are_measured_on_one_thread() -> None:
    class Seen(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shapes.add((len(x), torch.get_num_threads()))
            ticks[0] += len(x) / 1000
            return x

    shapes: set[tuple[int, int]] = set()
    ticks, before = [0.0], torch.get_num_threads()
    found = measure(Seen(), np.zeros((300, 4), np.float32), clock=lambda: ticks[0])
    assert shapes == {(1, 1), (256, 1)}
    assert (found.single_row_ms, found.batch_ms, found.batch_rows) == (pytest.approx(1.0), pytest.approx(256.0), 256)
    assert torch.get_num_threads() == before
