"""The budget: the bounds are those of scipy's beta distribution, the rest is counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from holdfast.artifacts.documents import Count, ExtractionCurve, ExtractionPoint
from holdfast.model.extract.budget import bounds, budget


def curve(strategy, *agreed, queries=(100, 300, 1000, 3000), n=200):
    points = tuple(ExtractionPoint(queries=q, agreed=Count(k=k, n=n)) for q, k in zip(queries, agreed, strict=False))
    return ExtractionCurve(strategy=strategy, outputs="full", points=points)


def test_it_is_the_last_count_before_a_copy_may_be_above_the_limit():
    found = budget([curve("random", 20, 60, 120, 180), curve("foreign", 20, 30, 40, 50)], at_most=0.8, alpha=0.05)
    assert found.queries == 1000
    assert found.reason.startswith("random (full): the copy agrees on 180 of 200 at 3000 queries")


def test_the_bound_counts_and_not_the_measured_share():
    # 156 of 200 is 0.78; the upper bound by the quantile of the beta distribution is 0.8273.
    assert bounds(curve("random", 156).points[0], 0.05).upper == pytest.approx(beta.ppf(0.95, 157, 44))
    assert budget([curve("random", 20, 156)], at_most=0.8, alpha=0.05).queries == 100
    assert budget([curve("random", 20, 156)], at_most=0.83, alpha=0.05).queries == 300


def test_nothing_is_guessed_beyond_what_the_shortest_strategy_asked():
    short = curve("in-distribution", 20, 30, queries=(100, 180))
    found = budget([curve("random", 20, 30, 40, 50), short], at_most=0.8, alpha=0.05)
    assert found.queries == 180
    assert "not above 0.8 up to 180 queries; more were not measured" in found.reason


def test_there_is_none_where_the_first_count_is_too_many():
    found = budget([curve("jacobian", 199, 20, 20, 20), curve("random", 1, 1, 1, 1)], at_most=0.8, alpha=0.05)
    assert found.queries is None
    assert "199 of 200 at 100 queries" in found.reason


@given(st.lists(st.integers(0, 200), min_size=1, max_size=4), st.floats(0, 1))
def test_a_lower_limit_never_allows_more(agreed, limit):
    curves = [curve("random", *agreed)]
    high, low = (budget(curves, at_most=one, alpha=0.05).queries or 0 for one in (limit, limit / 2))
    assert low <= high
