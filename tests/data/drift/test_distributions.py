import numpy as np

from holdfast.data.drift.columns import count
from holdfast.data.drift.distributions import bars, histogram


def test_every_row_is_counted_and_an_outlier_does_not_flatten_the_plot() -> None:
    rng = np.random.default_rng(0)
    told = histogram(rng.normal(size=1000), np.append(rng.normal(size=499), 1e9))
    assert (sum(told["reference"]), sum(told["current"])) == (1000, 500)
    assert (len(told["edges"]), len(told["reference"])) == (21, 20)
    assert told["edges"][-1] < 10


def test_constant_and_nearly_constant_columns_have_edges() -> None:
    told = histogram(np.zeros(10), np.zeros(5))
    assert told["edges"][0] < 0 < told["edges"][-1]
    rare = histogram(np.zeros(1000), np.append(np.zeros(999), 7.0))
    assert (rare["edges"][0], rare["edges"][-1], rare["current"][-1]) == (0, 7, 1)


def test_rare_categories_are_counted_together() -> None:
    reference = np.array([f"c{i:02d}" for i in range(40) for _ in range(40 - i)])
    told = bars(count(reference, reference[::2]))
    assert (len(told["categories"]), told["categories"][-1]) == (31, "(others)")
    assert (sum(told["reference"]), sum(told["current"])) == (820, 410)
