"""How long a network takes to answer: one row, and many at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from holdfast.artifacts.documents import AnswerTimes

BATCH_ROWS = 256
WARM_UP, FEWEST, MOST = 3, 5, 200
"""Answers that are not counted, and how many are."""
SECONDS = 0.25
"""After so long no more answers than `FEWEST` are asked for."""


def measure(net: nn.Module, x: NDArray[np.generic], *, clock: Callable[[], float]) -> AnswerTimes:
    """The medians of many answers to rows of x `[N, ...]`, N > 0, on the CPU with one thread.

    Args:
        net: a network on the CPU.
        x: what it takes.
        clock: gives the time in seconds.
    """
    one, batch = (torch.from_numpy(np.ascontiguousarray(x[:size])) for size in (1, BATCH_ROWS))
    with torch.inference_mode(), _one_thread():
        single, many = (1000 * typical(partial(net, rows), clock) for rows in (one, batch))
    return AnswerTimes(single_row_ms=single, batch_ms=many, batch_rows=len(batch))


def typical(answer: Callable[[], object], clock: Callable[[], float]) -> float:
    """The median time of an answer, in seconds."""
    for _ in range(WARM_UP):
        answer()
    times: list[float] = []
    while len(times) < FEWEST or (len(times) < MOST and sum(times) < SECONDS):
        began = clock()
        answer()
        times.append(clock() - began)
    return median(times)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
