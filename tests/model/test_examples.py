"""Which held-out rows a model is judged on: a sample, and more rows of the classes that are rare in it."""

import numpy as np
import pytest

from holdfast.model.examples import ENOUGH, rare_rows


def drawn(y: np.ndarray, count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(y))
    return order[:count], rare_rows(y, order, count, classes)


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_class_is_filled_up_and_a_frequent_one_is_not(seed: int) -> None:
    y = (np.arange(4000) % 40 == 0).astype(np.int64)  # 100 of 4,000
    sample, more = drawn(y, 500, 2, seed)
    assert set(y[more]) == {1}
    assert y[sample].sum() + len(more) == ENOUGH
    assert not set(sample) & set(more)


def test_there_are_no_more_rows_than_there_are() -> None:
    y = np.array([0] * 990 + [1] * 10)
    sample, more = drawn(y, 100, 2)
    assert y[sample].sum() + len(more) == 10


def test_many_classes_get_their_equal_share_of_the_sample_and_no_more() -> None:
    y = np.arange(5000) % 100
    sample, more = drawn(y, 300, 100)
    assert np.bincount(y[np.concatenate([sample, more])], minlength=100).min() == 3
    assert len(more) < 300


def test_a_sample_of_all_rows_leaves_nothing_to_add() -> None:
    assert len(drawn(np.array([0] * 97 + [1] * 3), 500, 2)[1]) == 0
