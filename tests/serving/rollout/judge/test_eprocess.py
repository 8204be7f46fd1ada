"""The e-processes: false alarms stay below alpha at any time, real faults are found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.serving.rollout.judge.eprocess import (
    MULTIPLIERS,
    Floats,
    OneArm,
    TwoArm,
    control_rate,
    log_factors,
    log_mean_exp,
)


def alarm_share(candidate: float, control: float, *, requests: int, block: int, runs: int, seed: int) -> float:
    """Share of simulated rollouts in which E >= 20 at any look; nine control answers per candidate answer."""
    rng = np.random.default_rng(seed)
    logs, failed, answered = np.zeros((runs, len(MULTIPLIERS))), np.zeros(runs), 0
    alarmed = np.zeros(runs, dtype=bool)
    ones: Floats = np.ones(runs)
    for _ in range(requests // block):
        k_c, k_s = rng.binomial(block, candidate, runs) * ones, rng.binomial(9 * block, control, runs) * ones
        logs += log_factors((k_c, block * ones), (k_s, 9 * block * ones), control_rate(failed, answered))
        failed, answered = failed + k_s, answered + 9 * block
        alarmed |= log_mean_exp(logs) >= np.log(20)
    return float(alarmed.mean())


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.03])
def test_false_alarms_at_any_look_stay_below_alpha(rate):
    # Ville's inequality: at most alpha = 1/20, here with three standard errors of 3,000 runs.
    found = alarm_share(rate, rate, requests=1000, block=5, runs=3000, seed=1)
    assert found <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 3000)


@pytest.mark.parametrize(
    ("rate", "requests", "expected"),
    # The project's own study of this rule (two arms 90:10, E >= 20, control at 1 %), rollback in percent.
    [(0.01, 500, 1.6), (0.02, 500, 30.0), (0.05, 500, 99.6), (0.02, 2000, 84.0)],
)
def test_detection_is_that_of_the_published_table(rate, requests, expected):
    found = 100 * alarm_share(rate, 0.01, requests=requests, block=5, runs=3000, seed=2)
    assert found == pytest.approx(expected, abs=5)


def test_a_candidate_that_only_fails_is_found_within_three_requests():
    test = TwoArm().add(candidate=(3, 3), control=(0, 27))
    assert test.value >= 20


def test_an_incident_that_hits_both_arms_is_not_the_candidates_fault():
    test = TwoArm()
    for _ in range(50):
        test = test.add(candidate=(3, 10), control=(27, 90))
    assert test.value < 20


def test_a_block_of_nothing_changes_nothing():
    test = TwoArm().add(candidate=(1, 10), control=(2, 90))
    assert test.add(candidate=(0, 0), control=(0, 0)).value == pytest.approx(test.value)


def test_without_control_there_is_no_evidence():
    assert TwoArm().add(candidate=(9, 10), control=(0, 0)).value == pytest.approx(1)


@given(st.integers(0, 5), st.integers(5, 40), st.integers(0, 20), st.integers(20, 300))
def test_one_step_has_expectation_one_when_nothing_is_wrong(k_before, n_before, k_control, n_control):
    # Definition of an e-value by direct summation over one candidate and one control answer with a common rate.
    before = TwoArm().add(candidate=(k_before, n_before), control=(k_control, n_control))
    for rate in (0.01, 0.2, 0.7):
        after = sum(
            before.add(candidate=(c, 1), control=(s, 1)).value * _chance(c, rate) * _chance(s, rate)
            for c in (0, 1)
            for s in (0, 1)
        )
        assert after <= before.value * (1 + 1e-9)


@given(st.floats(0.05, 0.6))
def test_one_arm_has_expectation_one_at_its_limit(limit):
    test = OneArm(limit)
    after = sum(test.add(hit, 1).value * _chance(hit, limit) for hit in (0, 1))
    assert after == pytest.approx(1)


def test_one_arm_finds_a_rate_above_its_limit():
    assert OneArm(0.25).add(10, 10).value > 100
    assert OneArm(0.25).add(25, 100).value < 20


def test_a_limit_of_everything_allows_everything():
    assert OneArm(1.0).add(10, 10).value == pytest.approx(1)


def _chance(hit: int, rate: float) -> float:
    return rate if hit else 1 - rate
