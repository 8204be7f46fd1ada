import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from holdfast.artifacts.documents import Count, Paired
from holdfast_gates.intervals import lower_bound, paired_difference, rate, upper_bound


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
    fewer, more = rate(Count(k=k, n=n), alpha), rate(Count(k=k + 1, n=n), alpha)
    assert fewer.lower <= k / n <= fewer.upper
    assert more.lower >= fewer.lower
    assert more.upper >= fewer.upper


@pytest.mark.parametrize(
    ("pairs", "lower", "upper"),
    [
        # Fagerland, Lydersen and Laake, Stat. Med. 33 (2014): airway hyper-responsiveness, Tango's interval.
        (Paired(both=1, only_candidate=1, only_champion=7, neither=12), -0.517, -0.026),
        # Tango (1998), contact lenses, 44 pairs of which one is discordant.
        (Paired(both=43, only_candidate=0, only_champion=1, neither=0), -0.118, 0.059),
    ],
)
def test_the_paired_interval_is_the_published_one(pairs, lower, upper):
    bounds = paired_difference(pairs, 0.025)
    assert (bounds.lower, bounds.upper) == (pytest.approx(lower, abs=5e-4), pytest.approx(upper, abs=5e-4))


@given(
    both=st.integers(0, 300),
    b=st.integers(0, 40),
    c=st.integers(0, 40),
    n=st.integers(0, 100),
    alpha=st.floats(0.01, 0.2),
)
def test_swapping_candidate_and_champion_mirrors_the_interval(both, b, c, n, alpha):
    here = paired_difference(Paired(both=both, only_candidate=b, only_champion=c, neither=n), alpha)
    there = paired_difference(Paired(both=both, only_candidate=c, only_champion=b, neither=n), alpha)
    assert here.lower == pytest.approx(-there.upper, abs=1e-9)
    total = both + b + c + n
    assert here.lower <= ((b - c) / total if total else 0) + 1e-12
    assert -1 <= here.lower <= here.upper <= 1


def test_the_paired_bound_keeps_its_promise_in_simulation():
    # Truly worse by the margin: the lower bound may exceed -margin in about alpha of the trials (here + 4 SE).
    rng, n, margin, alpha = np.random.default_rng(0), 500, 0.02, 0.05
    draws = rng.multinomial(n, [0.85, 0.03, 0.05, 0.07], size=2000)
    wrong = [
        paired_difference(Paired(both=a, only_candidate=b, only_champion=c, neither=d), alpha).lower >= -margin
        for a, b, c, d in draws.tolist()
    ]
    assert np.mean(wrong) <= alpha + 4 * np.sqrt(alpha * (1 - alpha) / len(wrong))
