"""A row as text for a terminal: an image as a small picture of shades, a table's row or a message as its values."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from holdfast.wording import printable

SHADES = " .:-=+*#%@"
SIDE = 32
"""Most characters of a picture's height; each pixel is two characters wide."""
_CELL = 200


def picture(x: NDArray[np.generic], lower: float, upper: float) -> str:
    """An image number[C, H, W] as lines of shades, dark at `lower`; channels are averaged, large ones thinned out."""
    step = max(1, -(-max(x.shape[1:]) // SIDE))
    grey = x.astype(np.float64).mean(axis=0)[::step, ::step]
    level = np.clip((grey - lower) / (upper - lower), 0, 1)
    shade = np.minimum((level * len(SHADES)).astype(int), len(SHADES) - 1)
    return "\n".join("".join(2 * SHADES[index] for index in line).rstrip() for line in shade)


def cells(values: Mapping[str, float | str]) -> str:
    """Column and value, one a line; long text is cut, control characters are escaped."""
    width = max(len(name) for name in values)
    return "\n".join(f"{shown(name):{width}}  {shown(value)}" for name, value in values.items())


def shown(value: float | str) -> str:
    """One line, at most 200 characters."""
    text = f"{value:.6g}" if isinstance(value, float) else printable(value)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"
