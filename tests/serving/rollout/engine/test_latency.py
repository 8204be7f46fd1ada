"""The test of latency: what one block finds, and that equal arms are not blamed whatever the machine does."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.latency import Case, simulate
from holdfast.serving.rollout.contract.counters import Arm, Counts
from holdfast.serving.rollout.engine.latency import BLOCK_SECONDS, PairedLatency, slower_share

EDGES = (10.0, 25.0, 40.0, 100.0, 250.0, 1000.0)
counts = st.lists(st.integers(0, 5), min_size=len(EDGES) + 2, max_size=len(EDGES) + 2).filter(sum)


def arm(buckets) -> Arm:
    """Answers per bucket, then above all edges, then timed out."""
    timed = sum(buckets[:-1])
    return Arm(sum(buckets), buckets[-1], timed, tuple(np.cumsum(buckets[: len(EDGES)]).tolist()), buckets[-1])


def only(bucket: int, n: int = 10) -> Arm:
    return arm([n if i == bucket else 0 for i in range(len(EDGES) + 2)])


def block(candidate: Arm, champion: Arm, *, seconds: float = BLOCK_SECONDS, lag: float = 0.0) -> Counts:
    return Counts(seconds, candidate, champion, lag=lag)


def after(*blocks: Counts) -> PairedLatency:
    test = PairedLatency()
    for one in blocks:
        test = test.add(one, EDGES, floor_ms=25.0, stall_seconds=0.125)
    return test


@given(ours=counts, theirs=counts, floor=st.sampled_from([0.0, 25.0, 100.0]))
def test_a_block_is_the_share_of_pairs_won_minus_the_share_lost(ours, theirs, floor):
    # By brute force over all pairs of answers.
    upper = [*EDGES, math.inf, math.inf]
    lower = [0.0, *EDGES, math.inf]

    def wins(slow, fast):
        if slow == len(EDGES) + 1:
            return fast != slow
        return lower[slow] >= floor and fast < slow and upper[slow] >= 1.5 * upper[fast]

    pairs = list(product(range(len(upper)), repeat=2))
    won = sum(ours[i] * theirs[j] * (wins(i, j) - wins(j, i)) for i, j in pairs)
    assert slower_share(arm(ours), arm(theirs), EDGES, floor) == pytest.approx(won / (sum(ours) * sum(theirs)))


@given(ours=counts, theirs=counts)
def test_swapping_the_arms_changes_the_sign(ours, theirs):
    # What makes the test fair: alike arms are as likely to be swapped as not.
    there, back = (slower_share(arm(a), arm(b), EDGES, 25.0) for a, b in ((ours, theirs), (theirs, ours)))
    assert there == pytest.approx(-back)


def test_what_may_be_below_the_floor_is_not_slow():
    assert slower_share(only(1), only(0), EDGES, 25.0) == 0.0
    assert slower_share(only(2), only(0), EDGES, 25.0) == 1.0


def test_the_next_bucket_is_slower_only_when_it_is_half_as_long_again():
    assert slower_share(only(2), only(1), (10.0, 30.0, *EDGES[2:]), 0.0) == 0.0
    assert slower_share(only(2), only(1), (10.0, 25.0, *EDGES[2:]), 0.0) == 1.0


def test_attempts_that_timed_out_are_slower_than_every_answer():
    assert slower_share(only(len(EDGES) + 1), only(len(EDGES)), EDGES, 25.0) == 1.0
    assert slower_share(only(len(EDGES) + 1), only(len(EDGES) + 1), EDGES, 25.0) == 0.0


def test_a_candidate_that_is_always_late_is_proven_slow_in_nine_blocks():
    # 0.35 x 1.95^n alone reaches 1 / (0.05 x 0.15) = 133 at n = 8.9.
    late = block(only(5), only(0))
    assert after(*[late] * 7).value < 133 < after(*[late] * 9).value


def test_arms_that_answer_alike_leave_the_evidence_at_one():
    assert after(*[block(only(5), only(5))] * 50).value == pytest.approx(1.0)


def test_a_block_waits_for_its_time_and_for_both_arms():
    short = block(only(5), only(0), seconds=0.2)
    assert [after(*[short] * n).blocks for n in range(7)] == [0, 0, 0, 1, 1, 1, 2]
    assert after(*[block(only(5), Arm())] * 9).blocks == 0
    assert after(*[block(only(5), Arm())] * 9, block(Arm(), only(0))).blocks == 1


@pytest.mark.parametrize("edges", [(), EDGES[:3]])
def test_answers_counted_in_other_buckets_are_no_data(edges):
    # A reading of counters that is empty, or of a router that was started with other buckets.
    test = PairedLatency().add(block(only(5), only(0)), edges, floor_ms=25.0, stall_seconds=0.125)
    assert (test.blocks, test.waiting) == (0, Counts())


def test_a_block_in_which_the_machine_stalled_is_no_data():
    test = after(block(only(5), only(0), lag=0.2), block(only(5), only(0), lag=0.1))
    assert (test.blocks, test.stalled) == (1, 1)


@given(seed=st.integers(0, 999))
def test_under_random_swaps_the_mean_of_the_evidence_is_one(seed):
    # The definition of an e-process, by exact enumeration of all 2^4 ways to swap the arms of four blocks.
    rng = np.random.default_rng(seed)
    pairs = [(arm(rng.integers(0, 4, 8).tolist()), arm(rng.integers(1, 9, 8).tolist())) for _ in range(4)]
    pairs = [(a if a.timed + a.timed_out else only(0), b) for a, b in pairs]
    found = [
        after(*(block(*(reversed(pair) if swap else pair)) for pair, swap in zip(pairs, swaps, strict=True))).value
        for swaps in product((False, True), repeat=4)
    ]
    assert np.mean(found) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("share", "rate", "stalls"), [(0.1, 200.0, "none"), (0.3, 200.0, "both arms"), (0.1, 200.0, "one arm")]
)
def test_equal_arms_are_promoted_and_rarely_blamed(share, rate, stalls):
    # 2,000 runs of each of 27 such cases: `python -m benchmarks latency`. At 10 % over the limit the rule before this
    # one promoted one of twenty.
    found = simulate(Case(share, rate, stalls), runs=60, seed=5)
    assert found.rolled_back <= 0.05
    assert found.promoted >= 0.9


def test_a_slower_candidate_is_not_promoted():
    found = simulate(Case(0.02, 200.0, later=1.0), runs=20, seed=5)
    assert (found.promoted, found.rolled_back) == (0.0, 1.0)
    assert found.seconds <= 7.0
