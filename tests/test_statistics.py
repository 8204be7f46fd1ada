"""Bounds compared with their definitions (distributions, root finding), the papers' tables, and simulation."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, fisher_exact

from holdfast.statistics import (
    Interval,
    chance_of_balanced_accuracy,
    clopper_pearson,
    lower_bound,
    mean_of_rates,
    newcombe_upper,
    paired_difference,
    sum_of_rates,
    upper_bound,
    wilson,
)


@given(trials=st.integers(1, 500), share=st.floats(0.001, 1), alpha=st.floats(0.001, 0.2))
def test_the_lower_bound_is_where_the_tail_equals_alpha(trials, share, alpha):
    # Definition of the one-sided bound, by an independent route: P[X >= k | p] = alpha.
    successes = max(1, round(share * trials))
    p = lower_bound(successes, trials, alpha)
    assert binom.sf(successes - 1, trials, p) == pytest.approx(alpha, rel=1e-6)


@given(trials=st.integers(1, 500), share=st.floats(0, 0.999), alpha=st.floats(0.001, 0.2))
def test_the_upper_bound_is_where_the_other_tail_equals_alpha(trials, share, alpha):
    successes = min(trials - 1, round(share * trials))
    p = upper_bound(successes, trials, alpha)
    assert binom.cdf(successes, trials, p) == pytest.approx(alpha, rel=1e-6)


def test_without_a_failure_the_bound_has_a_closed_form():
    # 299 clean requests bound the error rate below 1 % (rule of three): alpha ** (1 / n).
    assert lower_bound(299, 299, 0.05) == pytest.approx(0.05 ** (1 / 299))
    assert upper_bound(0, 299, 0.05) == pytest.approx(0.00997, abs=1e-4)


def test_without_trials_nothing_is_known():
    assert (lower_bound(0, 0, 0.05), upper_bound(0, 0, 0.05)) == (0.0, 1.0)


@given(n=st.integers(1, 300), k=st.integers(0, 299), alpha=st.floats(0.001, 0.2))
def test_one_more_success_never_lowers_a_bound(n, k, alpha):
    k = min(k, n - 1)
    fewer, more = clopper_pearson(k, n, alpha), clopper_pearson(k + 1, n, alpha)
    assert fewer.lower <= k / n <= fewer.upper
    assert more.lower >= fewer.lower
    assert more.upper >= fewer.upper


@pytest.mark.parametrize(
    ("pairs", "lower", "upper"),
    [
        # Fagerland, Lydersen and Laake, Stat. Med. 33 (2014): airway hyper-responsiveness, Tango's interval.
        ((1, 7, 21), -0.517, -0.026),
        # Tango (1998), contact lenses, 44 pairs of which one is discordant.
        ((0, 1, 44), -0.118, 0.059),
    ],
)
def test_the_paired_interval_is_the_published_one(pairs, lower, upper):
    bounds = paired_difference(*pairs, 0.025)
    assert (bounds.lower, bounds.upper) == (pytest.approx(lower, abs=5e-4), pytest.approx(upper, abs=5e-4))


@given(
    both=st.integers(0, 300),
    b=st.integers(0, 40),
    c=st.integers(0, 40),
    n=st.integers(0, 100),
    alpha=st.floats(0.01, 0.2),
)
def test_swapping_candidate_and_champion_mirrors_the_interval(both, b, c, n, alpha):
    total = both + b + c + n
    here, there = paired_difference(b, c, total, alpha), paired_difference(c, b, total, alpha)
    assert here.lower == pytest.approx(-there.upper, abs=1e-9)
    assert here.lower <= ((b - c) / total if total else 0) + 1e-12
    assert -1 <= here.lower <= here.upper <= 1


def test_the_paired_bound_keeps_its_promise_in_simulation():
    # Truly worse by the margin: the lower bound may exceed -margin in about alpha of the trials (here + 4 SE).
    rng, n, margin, alpha = np.random.default_rng(0), 500, 0.02, 0.05
    draws = rng.multinomial(n, [0.85, 0.03, 0.05, 0.07], size=2000)
    wrong = [paired_difference(b, c, n, alpha).lower >= -margin for _, b, c, _ in draws.tolist()]
    assert np.mean(wrong) <= alpha + 4 * np.sqrt(alpha * (1 - alpha) / len(wrong))


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
def test_newcombes_bound_gives_the_papers_examples(counts, low, high):
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


def test_without_answers_any_difference_is_possible():
    assert newcombe_upper(0, 0, 0, 100) == 1.0
    assert newcombe_upper(0, 100, 0, 0) == 1.0


def test_more_answers_of_the_same_kind_bring_the_bound_down():
    assert newcombe_upper(20, 2000, 180, 18_000) < newcombe_upper(5, 500, 45, 4500)


@given(n=st.integers(1, 400), k=st.integers(0, 400), confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_both_bounds_together_are_scipys_exact_interval(n, k, confidence):
    k = min(k, n)
    expected = binomtest(k, n).proportion_ci(confidence, "exact")
    bounds = clopper_pearson(k, n, (1 - confidence) / 2)
    assert (bounds.lower, bounds.upper) == (
        pytest.approx(expected.low, abs=1e-9),
        pytest.approx(expected.high, abs=1e-9),
    )


@given(n=st.integers(1, 400), k=st.integers(0, 400), confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_the_score_interval_is_scipys(n, k, confidence):
    from scipy.stats import norm

    k = min(k, n)
    expected = binomtest(k, n).proportion_ci(confidence, "wilson")
    low, high = wilson(k, n, float(norm.isf((1 - confidence) / 2)))
    assert (low, high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))


def test_the_module_brings_in_neither_scipy_nor_anything_of_ours():
    code = (
        "import sys, holdfast; before = set(sys.modules); import holdfast.statistics; new = set(sys.modules) - before;"
        "print(*(name for name in new if name.startswith(('scipy', 'numpy', 'holdfast', 'pydantic'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["holdfast.statistics"]


def margins(y, answers, classes):
    """Hits, rows and answers by class."""
    return [np.bincount(labels, minlength=classes).tolist() for labels in (y[y == answers], y, answers)]


def test_of_two_classes_the_chance_is_fishers_exact_test():
    rng = np.random.default_rng(0)
    for _ in range(50):
        y = (rng.random(80) < 0.2).astype(int)
        answers = np.where(rng.random(80) < 0.3, y, rng.random(80) < 0.3).astype(int)
        table = [[int(((y == row) & (answers == column)).sum()) for column in (0, 1)] for row in (0, 1)]
        expected = fisher_exact(table, alternative="greater").pvalue
        assert chance_of_balanced_accuracy(*margins(y, answers, 2)) == pytest.approx(expected, rel=1e-9)


def test_a_constant_answer_is_no_better_than_chance():
    assert chance_of_balanced_accuracy([346, 0], [346, 14], [360, 0]) == 1
    assert chance_of_balanced_accuracy([90, 0, 0], [90, 8, 2], [100, 0, 0]) == 1


def test_of_three_classes_the_chance_is_what_counting_every_assignment_gives():
    # 2 + 1 + 1 rows: 12 distinct assignments of the labels, counted by hand below.
    from itertools import permutations

    y, answers = [0, 0, 1, 2], [0, 0, 1, 1]
    weights = (1 / 2, 1, 1)

    def total(labels):
        return sum(weights[label] for label, given in zip(labels, answers, strict=True) if label == given)

    drawn = [total(labels) >= total(y) for labels in permutations(y)]
    found = chance_of_balanced_accuracy(*margins(np.array(y), np.array(answers), 3))
    assert found == pytest.approx(sum(drawn) / len(drawn), abs=0.03)


def test_answers_that_know_nothing_pass_no_more_often_than_the_level():
    rng = np.random.default_rng(1)
    seen = [
        chance_of_balanced_accuracy(*margins(rng.choice(2, 360, p=(0.96, 0.04)), rng.choice(2, 360, p=(0.9, 0.1)), 2))
        for _ in range(2000)
    ]
    # At most 5 %, and three standard errors of 2,000 draws.
    assert np.mean(np.array(seen) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="no more hits than rows"):
        chance_of_balanced_accuracy([11, 0], [10, 10], [10, 10])


@pytest.mark.parametrize(
    ("sizes", "rates"), [((346, 14), (0.97, 0.6)), ((40, 40), (0.5, 0.9)), ((500, 8), (0.99, 0.9))]
)
def test_the_bounds_of_a_mean_of_rates_cover_it(sizes, rates):
    rng, truth, covered = np.random.default_rng(0), sum(rates) / 2, [0, 0]
    for _ in range(1000):
        bounds = mean_of_rates([(int(rng.binomial(n, p)), n) for n, p in zip(sizes, rates, strict=True)], 0.05)
        covered[0] += bounds.lower <= truth
        covered[1] += bounds.upper >= truth
    assert min(covered) >= 930


def test_a_mean_of_no_rates_is_unknown():
    assert mean_of_rates([], 0.05) == Interval(0.0, 1.0)


def test_the_bounds_of_a_weighted_sum_of_rates_cover_it():
    rng, weights, truth, covered = np.random.default_rng(0), (1500.0, 970.0), 1500 * 0.2 + 970 * 0.08, [0, 0]
    for _ in range(1000):
        rates = [(int(rng.binomial(50, 0.2)), 50), (int(rng.binomial(450, 0.08)), 450)]
        bounds = sum_of_rates(rates, weights, 0.05)
        covered[0] += bounds.lower <= truth
        covered[1] += bounds.upper >= truth
    assert min(covered) >= 930


def test_the_bounds_of_one_rate_are_its_own_times_its_weight():
    bounds, alone = sum_of_rates([(3, 40)], [50.0], 0.05), clopper_pearson(3, 40, 0.05)
    assert (bounds.lower, bounds.upper) == pytest.approx((50 * alone.lower, 50 * alone.upper))


def test_a_rate_without_trials_may_be_anything():
    bounds = sum_of_rates([(0, 0)], [10.0], 0.05)
    assert (bounds.lower, bounds.upper) == (0.0, 10.0)
