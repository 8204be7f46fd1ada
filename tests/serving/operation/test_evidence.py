"""The evidence against a served model: no more false rollbacks than stated; a regression is found, also a late one."""

import numpy as np
import pytest
from scipy.stats import binom

from holdfast.serving.operation.evidence import ODDS, STRETCH_SECONDS, AboveLimit, OperationEvidence, RateWatch

LIMIT = 0.02


def watched(rate, stretches, *, answers, rng, watch=None):
    """The highest evidence over stretches of so many answers, and the watch afterwards."""
    watch, highest = watch or RateWatch.of(LIMIT, 10_000), 0.0
    for _ in range(stretches):
        watch = watch.add(int(rng.binomial(answers, rate)), answers)
        highest = max(highest, watch.value)
        watch = watch.next_stretch()
    return highest, watch


def test_at_the_limit_itself_a_period_ends_in_a_false_rollback_at_most_as_often_as_stated():
    # Ville: at most alpha = 0.1 of 120 periods in the mean; binom.sf(20, 120, 0.1) is 0.008.
    rng = np.random.default_rng(0)
    periods = [watched(LIMIT, 60, answers=40, rng=rng, watch=RateWatch.of(LIMIT, 60))[0] for _ in range(120)]
    assert sum(value >= 1 / 0.1 for value in periods) <= 20


def test_a_month_of_a_good_model_raises_nothing():
    highest, _ = watched(0.01, 720, answers=500, rng=np.random.default_rng(1), watch=RateWatch.of(LIMIT, 720))
    assert highest < 1.1


@pytest.mark.parametrize("good_hours", [0, 600])
def test_a_regression_is_found_within_an_hour_also_after_weeks_of_good_answers(good_hours):
    rng = np.random.default_rng(2)
    _, watch = watched(0.005, good_hours, answers=500, rng=rng, watch=RateWatch.of(LIMIT, 720))
    highest, _ = watched(0.08, 1, answers=1000, rng=rng, watch=watch)
    assert highest > 3 / 0.01


def test_evidence_begins_again_with_the_next_period():
    watch = RateWatch.of(LIMIT, 2).add(50, 100)
    assert watch.next_stretch().value > 1000
    assert watch.next_stretch().next_stretch() == RateWatch.of(LIMIT, 2)


def test_stretches_end_by_the_clock_also_while_no_one_looked():
    found = OperationEvidence("a", 1000.0, {"errors": RateWatch.of(LIMIT, 720)})
    later = found.at(1000.0 + 5.5 * STRETCH_SECONDS)
    assert (later.stretch, later.watches["errors"].ended) == (5, 5)
    assert later.at(0.0) == later  # a clock that goes back ends nothing


def test_a_proof_names_the_signal_and_its_limit():
    found = OperationEvidence("a", 0.0, {"errors": RateWatch.of(LIMIT, 720), "latency": RateWatch.of(0.05, 720)})
    assert found.proof(0.01) is None
    bad = found.add({"errors": (40, 100), "extraction": (9, 9)})
    assert bad.proof(0.01).startswith("errors: a share above 0.02 is proven (evidence ")


def test_a_factor_is_the_likelihood_ratio_of_the_odds_times_the_limits():
    # By the binomial distribution of scipy, at the rate whose odds are m times those of the limit.
    rates = [LIMIT * m / (1 - LIMIT + LIMIT * m) for m in ODDS]
    expected = [binom.logpmf(7, 90, rate) - binom.logpmf(7, 90, LIMIT) for rate in rates]
    assert AboveLimit(LIMIT).add(7, 90).logs == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0.001, LIMIT])
def test_up_to_the_limit_a_factor_is_at_most_1_in_the_mean(rate):
    mean = sum(binom.pmf(k, 40, rate) * AboveLimit(LIMIT).add(k, 40).value for k in range(41))
    assert mean <= 1 + 1e-9
