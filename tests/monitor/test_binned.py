"""Against the formula of the stability index, brute force and planted changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.monitor.binned import BinnedWindows, Bins, count


def numbers(rng: np.random.Generator, shift: float = 0.0, rows: int = 400) -> list[np.ndarray]:
    return [rng.normal(shift, 1, rows), rng.normal(0, 1, rows)]


@pytest.fixture
def bins() -> list[Bins]:
    training = numbers(np.random.default_rng(99), rows=5000)
    return [Bins.of_numbers(name, column) for name, column in zip("ab", training, strict=True)]


def test_a_number_is_in_the_bin_of_its_tenth() -> None:
    column = Bins.of_numbers("a", np.arange(1000.0))
    assert np.bincount(column.places(np.arange(1000.0)), minlength=column.size).tolist() == [100] * 10 + [0]


def test_values_beyond_training_are_in_the_open_ends_and_missing_ones_apart() -> None:
    column = Bins.of_numbers("a", np.arange(1000.0))
    found = column.places(np.array([-1e6, 1e6, np.inf, np.nan]))
    assert found.tolist() == [0, 9, 9, 10]


def test_a_category_that_training_did_not_know_has_its_own_bin() -> None:
    column = Bins.of_categories("c", np.array(["red", "blue", "red"]))
    assert column.places(np.array(["blue", "red", "green", "zebra"])).tolist() == [0, 1, 2, 2]


def test_a_column_of_one_value_can_be_counted() -> None:
    column = Bins.of_numbers("a", np.zeros(100))
    assert column.places(np.array([0.0, 5.0, np.nan])).tolist() == [1, 1, 2]


@given(st.integers(0, 2**16))
def test_the_distance_is_the_stability_index_in_units_of_chance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    windows = rng.integers(0, 30, (5, 7)) + 1
    windows[:, 3:] = windows[:, 3:] * (windows[:, :3].sum(axis=1) / windows[:, 3:].sum(axis=1))[:, None]
    found = BinnedWindows([3, 4])
    for window in windows:
        found.add(window)
    # The definition, with half a row more in each bin.
    rows, total = windows[:, :3].sum(axis=1), windows.sum(axis=0)
    p = (windows[:, :3] + 0.5) / (rows + 1.5)[:, None]
    q = (total[:3] + 0.5) / (rows.sum() + 1.5)
    expected = ((p - q) * np.log(p / q)).sum(axis=1) / (1 / rows + 1 / rows.sum())
    assert found.distances[:, 0] == pytest.approx(expected, abs=1e-8)


def test_the_order_of_the_windows_does_not_change_their_scores(bins: list[Bins]) -> None:
    rng = np.random.default_rng(0)
    windows = [count(bins, numbers(rng)) for _ in range(20)]
    one, two = BinnedWindows([b.size for b in bins]), BinnedWindows([b.size for b in bins])
    for window in windows:
        one.add(window)
    for window in windows[::-1]:
        two.add(window)
    assert one.scores == pytest.approx(two.scores[::-1])


def test_a_column_that_moved_has_the_highest_score(bins: list[Bins]) -> None:
    rng, found = np.random.default_rng(0), BinnedWindows([b.size for b in bins])
    for _ in range(50):
        found.add(count(bins, numbers(rng)))
    found.add(count(bins, numbers(rng, shift=0.5)))
    assert found.scores.argmax(axis=0).tolist() == [50, 50]
    assert found.distances[-1].argmax() == 0


def test_one_value_of_a_million_hides_no_shift(bins: list[Bins]) -> None:
    rng, found = np.random.default_rng(0), BinnedWindows([b.size for b in bins])
    for _ in range(50):
        found.add(count(bins, numbers(rng)))
    moved = numbers(rng, shift=0.5)
    moved[0][0] = 1e6
    found.add(count(bins, moved))
    assert found.scores.argmax(axis=0).tolist() == [50, 50]


def test_a_missing_value_in_every_third_row_is_a_change(bins: list[Bins]) -> None:
    rng, found = np.random.default_rng(0), BinnedWindows([b.size for b in bins])
    for _ in range(50):
        found.add(count(bins, numbers(rng)))
    broken = numbers(rng)
    broken[1][::3] = np.nan
    found.add(count(bins, broken))
    assert found.scores.argmax(axis=0).tolist() == [50, 50]
    assert found.distances[-1].argmax() == 1


def test_with_a_season_each_window_meets_those_of_its_hour(bins: list[Bins]) -> None:
    rng = np.random.default_rng(0)
    plain, seasonal = (BinnedWindows([b.size for b in bins], season) for season in (1, 4))
    for hour in range(80):
        window = count(bins, numbers(rng, shift=float(hour % 4)))
        plain.add(window)
        seasonal.add(window)
    assert np.median(seasonal.distances[:, 0]) < 15 < np.median(plain.distances[:, 0])
