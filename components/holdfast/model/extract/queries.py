"""What an attacker asks a model whose answers he wants to learn from. Pure; rows are as the network takes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

X = NDArray[Any]
"""float32[N, ...] or int64[N, L]."""
Chance = np.random.Generator
_LEAVES = 12
"""Shapes in one picture of shapes."""


def noise(x: X, count: int, chance: Chance) -> X:
    """Even noise between the smallest and the largest value of each place."""
    flat = x.reshape(len(x), -1)
    low, high = flat.min(0), flat.max(0)
    drawn = chance.random((count, flat.shape[1])) * (high - low + (flat.dtype.kind == "i")) + low
    found: X = drawn.astype(x.dtype).reshape(count, *x.shape[1:])
    return found


def shuffled(x: X, count: int, chance: Chance) -> X:
    """Rows of which each place has the value of another row there: what is usual alone, and unusual together."""
    flat = x.reshape(len(x), -1)
    drawn = chance.integers(len(x), size=(count, flat.shape[1]))
    found: X = np.take_along_axis(flat, drawn, axis=0).reshape(count, *x.shape[1:])
    return found


def pictures(shape: tuple[int, ...], count: int, chance: Chance) -> NDArray[np.float32]:
    """float32[count, C, H, W] in [0, 1]: ellipses of even color on top of each other, small ones more often.

    Images that follow the statistics of photographs (dead leaves: Lee, Mumford and Huang 2001; Baradad et al. 2021
    learn features of photographs from them) and show nothing that the model knows.
    """
    channels, height, width = shape
    found = np.broadcast_to(chance.random((count, channels, 1, 1), np.float32), (count, *shape)).copy()
    rows, columns = np.arange(height)[:, None] / height, np.arange(width) / width
    for _ in range(_LEAVES):
        middle = chance.random((2, count, 1, 1))
        radius = 0.5 * (0.12 / (0.12 + 0.88 * chance.random((2, count, 1, 1))))
        inside = ((rows - middle[0]) / radius[0]) ** 2 + ((columns - middle[1]) / radius[1]) ** 2 <= 1
        color = chance.random((count, channels, 1, 1), np.float32)
        found = np.where(inside[:, None], color, found)
    return found


def shuffled_words(messages: Sequence[str], count: int, chance: Chance) -> list[str]:
    """Messages as long as these, in words, of their words in any order: sentences of no one.

    Krishna et al. (2020), Thieves on Sesame Street, arXiv:1910.12366, copy language models by such.
    """
    split = [message.split() for message in messages]
    words = np.array([word for one in split for word in one] or [""])
    lengths = chance.choice([max(len(one), 1) for one in split], size=count)
    return [" ".join(chance.choice(words, size=length)) for length in lengths]
