"""Newcombe's bound: the paper's examples, its definition by inversion, and what it covers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from holdfast.serving.rollout.judge.intervals import newcombe_upper, wilson


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    # Newcombe 1998, Table II, method 10, two-sided 95 %.
    [
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((10, 10, 0, 20), 0.6791, 1.0000),
    ],
)
def test_the_papers_examples(counts, low, high):
    k_c, n_c, k_s, n_s = counts
    assert newcombe_upper(k_c, n_c, k_s, n_s, 0.975) == pytest.approx(high, abs=5e-5)
    assert -newcombe_upper(k_s, n_s, k_c, n_c, 0.975) == pytest.approx(low, abs=5e-5)


@given(n=st.integers(1, 3000), share=st.floats(0, 1), z=st.floats(0.5, 3))
def test_the_score_interval_ends_where_the_share_is_z_standard_errors_away(n, share, z):
    # Definition, by root finding: |k/n - p| = z sqrt(p (1 - p) / n).
    k = round(share * n)

    def distance(p: float) -> float:
        return abs(k / n - p) - z * math.sqrt(p * (1 - p) / n)

    low, high = wilson(k, n, z)
    if k > 0:
        assert brentq(distance, 1e-15, k / n - 1e-9, xtol=1e-14) == pytest.approx(low, abs=1e-9)
    if k < n:
        assert brentq(distance, k / n + 1e-9, 1 - 1e-15, xtol=1e-14) == pytest.approx(high, abs=1e-9)


def test_without_answers_anything_is_possible():
    assert newcombe_upper(0, 0, 0, 100) == 1.0
    assert newcombe_upper(0, 100, 0, 0) == 1.0


def test_more_answers_of_the_same_kind_bring_the_bound_down():
    assert newcombe_upper(20, 2000, 180, 18_000) < newcombe_upper(5, 500, 45, 4500)
