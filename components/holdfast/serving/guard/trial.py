"""Made-up clients: users, who must not be alarmed, and others, who must be."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.serving.guard.calibration import Calibration, Samples
from holdfast.serving.guard.client import Client, queries

X = NDArray[Any]
"""Rows as the network takes them."""


def alarm_at(calibration: Calibration, samples: Samples, alpha: float) -> int | None:
    """After how many of these queries, each another row, a new client is alarmed; None: after none."""
    client, limit = Client(), -math.log(alpha)
    for count, query in enumerate(queries(calibration, samples, range(len(samples))), start=1):
        client.observe(query, calibration)
        if client.log_wealth >= limit:
            return count
    return None


def shuffled(x: X, count: int, chance: np.random.Generator) -> X:
    """Rows of which each place has the value of another row there: what is usual alone, and unusual together."""
    flat = x.reshape(len(x), -1)
    drawn = chance.integers(len(x), size=(count, flat.shape[1]))
    found: X = np.take_along_axis(flat, drawn, axis=0).reshape(count, *x.shape[1:])
    return found


def noise(x: X, count: int, chance: np.random.Generator) -> X:
    """Even noise between the smallest and the largest value of each place."""
    flat = x.reshape(len(x), -1)
    low, high = flat.min(0), flat.max(0)
    drawn = chance.random((count, flat.shape[1])) * (high - low + (flat.dtype.kind == "i")) + low
    found: X = drawn.astype(x.dtype).reshape(count, *x.shape[1:])
    return found
