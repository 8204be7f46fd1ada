"""Columns that float32 would flatten are refused by name; other large and small numbers are not."""

import numpy as np
import pytest

from holdfast.errors import InputError
from holdfast.modality.precision import check_precision

RNG = np.random.default_rng(0)
LOST = {
    "seconds of one minute": 1_710_000_000.0 + np.arange(300) % 61,
    "account numbers in a row": 900_000_000.0 + np.arange(300) % 50,
    "negative offsets": -4e9 + RNG.normal(0, 20, 300),
    "milliseconds of one hour": 1.7e12 + RNG.uniform(0, 3.6e6, 300),
    "beyond float32": np.array([1e39, 2e39]),
}
KEPT = {
    "seconds of one year": 1_710_000_000.0 + RNG.uniform(0, 3.15e7, 300),
    "amounts with one outlier": np.append(RNG.lognormal(3, 1, 300), 5e8),
    "years": 1950.0 + np.arange(300) % 70,
    "tiny numbers": RNG.normal(0, 1e-30, 300),
    "a constant": np.full(300, 1_710_000_000.0),
    "no rows": np.array([]),
}


@pytest.mark.parametrize("name", LOST)
def test_numbers_that_float32_does_not_tell_apart_are_refused(name):
    with pytest.raises(
        InputError, match=r"^d.csv: column 'when': expected numbers that float32 can distinguish.*subtract"
    ):
        check_precision(LOST[name], "d.csv: column 'when'")


@pytest.mark.parametrize("name", KEPT)
def test_numbers_that_float32_tells_apart_are_taken(name):
    check_precision(KEPT[name], "d.csv: column 'when'")
    # By another route: casting moves no value by more than a hundredth of the spread.
    values = KEPT[name]
    moved = np.abs(values.astype(np.float32).astype(np.float64) - values)
    assert values.std() == 0 or moved.max() <= 0.01 * values.std() if len(values) else True


def test_the_bound_is_one_step_in_a_hundredth_of_the_spread():
    # Between 2^24 and 2^25 the steps of float32 are 2 (24 bits): a spread of 200 is just enough.
    row = np.array([-1.0, 1.0])
    check_precision(2.0**24 + 1000 + 201 * row, "t: column 'a'")
    with pytest.raises(InputError, match="where its steps are 2, with a standard deviation of 199"):
        check_precision(2.0**24 + 1000 + 199 * row, "t: column 'a'")
