"""The e-processes: nothing to expect when nothing is wrong, little needed when something is."""

import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom, nchypergeom_fisher

from holdfast.statistics.eprocess import MULTIPLIERS, RESERVE, WEIGHTS, OneArm, TwoArm, log_factors

RATES = (0.01, 0.2, 0.7)


@given(c=st.integers(1, 30), b=st.integers(1, 80), share=st.floats(0, 1), k=st.integers(1, 109))
def test_a_factor_is_the_ratio_of_fishers_distributions(c, b, share, k):
    # By another library: scipy's central and noncentral hypergeometric distributions.
    k = min(k, c + b - 1)
    low, high = max(0, k - b), min(c, k)
    k_c = low + round(share * (high - low))
    expected = [
        nchypergeom_fisher.logpmf(k_c, c + b, c, k, m) - hypergeom.logpmf(k_c, c + b, c, k) for m in MULTIPLIERS
    ]
    assert log_factors(k_c, c, k - k_c, b) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(
    past=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=4),
    sizes=st.tuples(st.integers(0, 6), st.integers(0, 12)),
)
def test_one_look_has_expectation_one_when_nothing_is_wrong(past, sizes):
    # Definition of an e-value, by direct summation over all answers of the next look with a common rate.
    before = TwoArm()
    for k_c, k_s in past:
        before = before.add(candidate=(k_c, 3), control=(k_s, 9))
    for rate in RATES:
        assert expectation(before, sizes, rate, rate) == pytest.approx(before.value)


@given(sizes=st.tuples(st.integers(1, 6), st.integers(1, 12)), rate=st.floats(0.001, 0.999), part=st.floats(0.01, 1))
def test_a_better_candidate_gives_no_evidence_on_average(sizes, rate, part):
    assert expectation(TwoArm(), sizes, part * rate, rate) <= 1 + 1e-9


@given(sizes=st.tuples(st.integers(1, 5), st.integers(1, 9)), rate=st.floats(0.01, 0.9))
def test_a_look_that_waited_for_the_other_arm_has_expectation_one(sizes, rate):
    # Two looks, the first without control: both are one block.
    c, b = sizes
    found = sum(
        binom.pmf(early, c, rate) * expectation(TwoArm().add(candidate=(early, c), control=(0, 0)), (2, b), rate, rate)
        for early in range(c + 1)
    )
    assert found == pytest.approx(1)


def test_a_candidate_that_only_fails_is_found_within_three_requests():
    test = TwoArm()
    for _ in range(3):
        test = test.add(candidate=(1, 1), control=(0, 9))
    assert test.value >= 20


def test_an_incident_that_hits_both_arms_is_not_the_candidates_fault():
    test = TwoArm()
    for _ in range(50):
        test = test.add(candidate=(3, 10), control=(27, 90))
    assert test.value < 20


def test_when_everything_fails_at_both_arms_nothing_is_learnt():
    assert TwoArm().add(candidate=(10, 10), control=(90, 90)).value == pytest.approx(1)


def test_a_look_at_nothing_changes_nothing():
    test = TwoArm().add(candidate=(1, 10), control=(2, 90))
    assert test.add(candidate=(0, 0), control=(0, 0)) == test


def test_without_control_there_is_no_evidence_until_there_is_one():
    early = TwoArm().add(candidate=(9, 10), control=(0, 0))
    assert early.value == pytest.approx(1)
    assert early.add(candidate=(0, 0), control=(0, 90)) == TwoArm().add(candidate=(9, 10), control=(0, 90))


def test_failures_that_begin_after_thousands_of_good_answers_are_found():
    test = TwoArm()
    for _ in range(400):
        test = test.add(candidate=(0, 10), control=(1, 90))
    assert test.value < 1
    for _ in range(4):
        test = test.add(candidate=(5, 10), control=(1, 90))
    assert test.value >= 20


def test_a_look_at_millions_is_quick_and_finite():
    test = TwoArm().add(candidate=(500_000, 1_000_000), control=(100_000, 9_000_000))
    assert 1e299 < test.value <= 1e300
    better = TwoArm().add(candidate=(100, 1_000_000), control=(500_000, 9_000_000))
    assert better.value == pytest.approx(RESERVE)
    assert math.isfinite(TwoArm(judged=10**18).add(candidate=(0, 1), control=(0, 9)).value)


def test_a_test_survives_json():
    test = TwoArm().add(candidate=(1, 10), control=(2, 90)).add(candidate=(1, 2), control=(0, 0))
    fields = json.loads(json.dumps(asdict(test)))
    assert (
        TwoArm(**{name: tuple(field) if isinstance(field, list) else field for name, field in fields.items()}) == test
    )


def test_the_stakes_add_up_to_one():
    assert math.fsum(WEIGHTS) == pytest.approx(1)
    assert len(WEIGHTS) == len(MULTIPLIERS)


@given(st.floats(0.05, 0.6))
def test_one_arm_has_expectation_one_at_its_limit(limit):
    test = OneArm(limit)
    after = sum(test.add(hit, 1).value * (limit if hit else 1 - limit) for hit in (0, 1))
    assert after == pytest.approx(1)


def test_one_arm_finds_a_rate_above_its_limit():
    assert OneArm(0.25).add(10, 10).value > 100
    assert OneArm(0.25).add(25, 100).value < 20


def test_a_limit_of_everything_allows_everything():
    assert OneArm(1.0).add(10, 10).value == pytest.approx(1)


def expectation(before: TwoArm, sizes: tuple[int, int], theta_c: float, theta_s: float) -> float:
    c, b = sizes
    return sum(
        before.add(candidate=(k_c, c), control=(k_s, b)).value * binom.pmf(k_c, c, theta_c) * binom.pmf(k_s, b, theta_s)
        for k_c in range(c + 1)
        for k_s in range(b + 1)
    )
