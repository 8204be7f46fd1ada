"""Against the definition of a fair stake, and by simulation."""

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.monitor.ranks import POWERS, STREAK, MixedRanks, RankEvidence, quickest

MONEY = st.floats(0, 10)
HELD = st.builds(
    RankEvidence,
    horizon=st.integers(1, 50),
    windows=st.integers(0, 60),
    streaks=st.tuples(*[MONEY] * STREAK),
    powers=st.tuples(*[MONEY] * len(POWERS)),
)


@given(held=HELD, of=st.integers(1, 200))
def test_no_stake_gains_on_average_over_all_ranks(held: RankEvidence, of: int) -> None:
    # Exchangeable windows without ties have each rank with chance 1 / of: the mean is the expectation.
    mean = np.mean([held.add(rank, of).value for rank in range(1, of + 1)])
    assert mean <= held.value * (1 + 1e-9)


@given(held=HELD, of=st.integers(2, 200))
def test_a_worse_rank_never_pays_more(held: RankEvidence, of: int) -> None:
    # Ties make ranks larger than they should be; that must not raise the evidence.
    values = [held.add(rank, of).value for rank in range(1, of + 1)]
    assert all(one >= two for one, two in zip(values, values[1:], strict=False))


def test_the_start_is_no_evidence() -> None:
    assert RankEvidence(720).value == 1.0


def test_independent_uniform_ranks_cross_as_seldom_as_ville_has_it() -> None:
    rng, crossed, alpha = np.random.default_rng(0), 0, 0.1
    for _ in range(400):
        evidence, highest = RankEvidence(100), 0.0
        for of in range(50, 150):
            evidence = evidence.add(int(rng.integers(1, of + 1)), of)
            highest = max(highest, evidence.value)
        crossed += highest >= 1 / alpha
    assert crossed <= 55  # at most 40 are expected; 55 lies 2.5 standard deviations above


def test_two_windows_that_resemble_none_of_a_months_are_enough() -> None:
    assert quickest(stable=720, alpha=0.005, horizon=720) == 2


@given(stable=st.integers(1, 300))
def test_more_stable_windows_are_never_slower(stable: int) -> None:
    assert quickest(stable + 50, 0.005, 720) <= quickest(stable, 0.005, 720)


def test_the_last_windows_rank_counts_itself_and_ties() -> None:
    scores = np.array([[1.0, 5.0], [3.0, 3.0], [2.0, 5.0]])
    by_hand = (RankEvidence(10).add(2, 3), RankEvidence(10).add(2, 3))
    assert MixedRanks.of(2, 10).add(scores).evidence == by_hand


def test_evidence_stays_finite() -> None:
    evidence = RankEvidence(10)
    for of in range(1000, 1400):
        evidence = evidence.add(1, of)
    assert log(evidence.value) == pytest.approx(log(1e300))
