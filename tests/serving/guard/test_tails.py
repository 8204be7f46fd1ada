import math

import numpy as np
import pytest

from holdfast.serving.guard.tails import groups_of, tail_bounds


@pytest.mark.parametrize("n", [5, 60, 400])
def test_the_table_is_below_the_true_tail_as_seldom_as_promised(n: int) -> None:
    # Uniform scores: the true tail at the r + 1st most extreme of them is its own value.
    delta, trials = 0.1, 4000
    scores = np.sort(np.random.default_rng(n).random((trials, n)), axis=1)
    wrong = (scores > tail_bounds(n, delta)[:-1]).any(axis=1).mean()
    assert 0 < wrong <= delta + 3 * math.sqrt(delta * (1 - delta) / trials)


def test_the_table_rises_to_one_and_is_above_the_share_of_scores() -> None:
    table = tail_bounds(1000, 0.01)
    assert (np.diff(table) >= 0).all()
    assert (table >= np.arange(1001) / 1000).all()
    assert table[-1] == 1


def test_the_tail_is_tighter_than_the_band_of_dvoretzky_kiefer_and_wolfowitz() -> None:
    n, delta = 7500, 0.01
    assert tail_bounds(n, delta)[0] < math.sqrt(math.log(1 / delta) / (2 * n)) / 10


def test_without_scores_nothing_is_unusual() -> None:
    assert tail_bounds(0, 0.01).tolist() == [1.0]


def test_classes_with_few_rows_share_the_last_group() -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 3, 60, 4])
    assert groups_of(labels, 5, least=40).tolist() == [0, 2, 1, 2, 2]
