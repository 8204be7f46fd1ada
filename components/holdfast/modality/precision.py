"""Whether float32, in which networks compute, can distinguish the values of a column."""

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import InputError

LARGEST_STEP = 0.01
"""Standard deviations of a column that one step of float32 may be at its largest value."""


def check_precision(values: NDArray[np.float64], where: str) -> None:
    """Refuses numbers that lie far from zero and close together, such as Unix seconds of one day.

    float32 has 24 bits: near 1.7e9 its neighbours are 128 apart, so that 61 seconds in a row are one value. A column
    without spread has nothing to distinguish.

    Raises:
        InputError: names the column and what to do.
    """
    if len(values) == 0:
        return
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold has no steps there, and is refused
        largest, spread = float(np.abs(values).max()), float(values.std())
        step = float(np.spacing(np.float32(largest)))
    if spread > 0 and not step <= LARGEST_STEP * spread:
        raise InputError(
            f"{where}: expected numbers that float32 can distinguish, found values near {largest:.6g}, where its steps "
            f"are {step:g}, with a standard deviation of {spread:.3g}; subtract a constant from the column, such as "
            "its smallest value, or name it in data.drop"
        )
