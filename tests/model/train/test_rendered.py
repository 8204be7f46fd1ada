"""The benchmarks' own images: the same for the same seed, within their limits, and readable."""

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.rendered import digits


def test_images_show_all_digits_and_the_seed_decides() -> None:
    one, other, again = digits(500, seed=0), digits(500, seed=1), digits(500, seed=0)
    assert (one.x.shape, one.x.dtype, one.y.dtype) == ((500, 1, 28, 28), np.float32, np.int64)
    assert (float(one.x.min()), float(one.x.max())) == (0.0, 1.0)
    assert np.bincount(one.y, minlength=10).min() > 20
    assert np.array_equal(one.x, again.x)
    assert not np.array_equal(one.x, other.x)


def test_neighbours_read_most_of_them() -> None:
    train, test = digits(2000, seed=0), digits(300, seed=1)
    found = KNeighborsClassifier(1).fit(train.x.reshape(2000, -1), train.y).score(test.x.reshape(300, -1), test.y)
    assert found > 0.8
