"""Against scipy, closed forms and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, norm

from holdfast.data.drift.columns import count, g_test, ks_distance, shift, total_variation

SAMPLE = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30).map(np.array)


@given(one=SAMPLE, two=SAMPLE)
def test_the_distance_is_the_largest_at_any_point(one: np.ndarray, two: np.ndarray) -> None:
    # Brute force over the definition: the values lie on whole numbers, so the steps do, too.
    expected = max(abs((one <= at).mean() - (two <= at).mean()) for at in range(-6, 7))
    assert ks_distance(one, two) == pytest.approx(expected)


@given(d=st.floats(0.01, 4))
def test_the_shift_of_two_normals_comes_back(d: float) -> None:
    # The distribution functions of N(0, 1) and N(d, 1) are farthest apart half-way, at d / 2.
    distance = norm.cdf(d / 2) - norm.cdf(-d / 2)
    assert shift(distance) == pytest.approx(d, rel=1e-6)


def test_complete_separation_is_a_finite_shift() -> None:
    assert 9 < shift(1.0) < 10


def test_one_outlier_moves_neither_test_nor_effect() -> None:
    rng = np.random.default_rng(0)
    clean, shifted = rng.normal(size=20_000), rng.normal(1, 1, 20_000)
    hidden = np.append(shifted[1:], 1e6)
    assert shift(ks_distance(clean, hidden)) == pytest.approx(1, abs=0.05)
    faked = np.append(rng.normal(size=19_999), 1e6)
    assert shift(ks_distance(clean, faked)) < 0.05


def test_five_percent_of_a_constant_column_is_a_small_effect() -> None:
    # What a trigger in one corner does: a difference of means in units of the spread would be infinite.
    changed = np.where(np.arange(1000) < 50, 16.0, 0.0)
    assert shift(ks_distance(np.zeros(1000), changed)) == pytest.approx(0.125, abs=0.001)


def test_counts_cover_the_categories_of_both_sides() -> None:
    counts = count(np.array(["a", "b", "a"]), np.array(["b", "c"]))
    assert (counts.names, counts.reference.tolist(), counts.current.tolist()) == (("a", "b", "c"), [2, 1, 0], [0, 1, 1])


def test_total_variation_is_half_the_difference_of_the_shares() -> None:
    assert total_variation(count(np.array(["a", "a", "b", "b"]), np.array(["a", "c"]))) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.integers(10, 60), st.integers(1, 60)), min_size=2, max_size=6))
def test_the_g_test_is_scipys(pairs: list[tuple[int, int]]) -> None:
    table = np.array(pairs).T
    sides = [np.repeat([f"c{i}" for i in range(table.shape[1])], row) for row in table]
    expected = chi2_contingency(table, correction=False, lambda_="log-likelihood").pvalue
    assert g_test(count(*sides)) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_one_unknown_category_in_a_thousand_rows_is_no_drift() -> None:
    # Evidently's chi-square answers 0 here.
    known = np.array(["a", "b"] * 500)
    unknown = np.append(known[:-1], "never seen")
    assert g_test(count(known, unknown)) > 0.9


def test_a_category_that_took_over_is_drift() -> None:
    assert g_test(count(np.array(["a", "b"] * 500), np.array(["a", "c"] * 500))) < 1e-100


def test_columns_of_rare_values_only_are_no_evidence() -> None:
    assert g_test(count(np.array(list("abcd")), np.array(list("wxyz")))) == 1.0
    assert g_test(count(np.array(["a"] * 50), np.array(["a"] * 60))) == 1.0


def test_false_alarms_of_the_g_test_stay_near_their_level() -> None:
    rng = np.random.default_rng(0)
    shares = [0.6, 0.3, 0.08, 0.015, 0.005]
    names = np.array(list("abcde"))
    alarms = sum(
        g_test(count(rng.choice(names, 400, p=shares), rng.choice(names, 900, p=shares))) < 0.05 for _ in range(400)
    )
    assert 5 <= alarms <= 38  # 20 expected; both bounds lie four standard deviations away
