"""Prediction drift on paired answers: a fair game when nothing drifts, found when something does."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.statistics.drift import PredictionDrift

LIMIT = 0.02


@given(
    limit=st.floats(0, 0.3),
    share=st.floats(0.3, 1),
    past=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    one_side=st.booleans(),
)
def test_one_pair_has_expectation_at_most_one_at_the_limit(limit, share, past, one_side):
    # Definition, by summation over the three things that one pair can be: both classes drift by exactly the limit.
    before = PredictionDrift(limit, classes=2).add((past[0], past[1]), (past[1], past[0]), 18)
    up = (share + limit) / 2 if one_side else (share - limit) / 2
    chances = {(1, 0): up, (0, 1): share - up, (0, 0): 1 - share}
    after = sum(chance * before.add((gain, loss), (loss, gain), 1).value for (gain, loss), chance in chances.items())
    assert after <= before.value * (1 + 1e-9)


@pytest.mark.parametrize(("drift", "least", "most"), [(0.0, 0.0, 0.05), (LIMIT, 0.0, 0.05), (0.06, 0.95, 1.0)])
def test_alarms_at_any_of_100_looks(drift, least, most):
    # Ville's inequality at alpha = 1/20; ten classes, of which the last moves to the first in `drift` of 2,000 pairs,
    # while 5 % of the pairs disagree without a drift.
    rng = np.random.default_rng(3)
    alarms = [alarmed(rng, drift) for _ in range(300)]
    slack = 3 * np.sqrt(0.05 * 0.95 / len(alarms))
    assert least <= np.mean(alarms) <= most + slack


def alarmed(rng: np.random.Generator, drift: float) -> bool:
    test = PredictionDrift(LIMIT, classes=10)
    chances = [drift, 0.025, 0.025, 1 - drift - 0.05]
    for moved, there, back, _ in rng.multinomial(20, chances, 100):
        gained, lost = [0] * 10, [0] * 10
        gained[0] += int(moved)
        lost[9] += int(moved)
        gained[3], lost[4] = int(there), int(there)
        gained[4], lost[3] = int(back), int(back)
        test = test.add(tuple(gained), tuple(lost), 20)
        if test.value >= 20:
            return True
    return False


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8).flatmap(
        lambda x: st.tuples(st.just(x), st.permutations(x))
    )
)
def test_the_order_of_looks_is_nothing(looks):
    one, other = (PredictionDrift(LIMIT, classes=2) for _ in range(2))
    for (up, down), (up_2, down_2) in zip(*looks, strict=True):
        one, other = one.add((up, down), (down, up), 7), other.add((up_2, down_2), (down_2, up_2), 7)
    assert one.value == other.value


def test_classes_beyond_the_slots_are_one_class():
    many = PredictionDrift(LIMIT).add((0,) * 70 + (9,), (0,) * 80 + (9,), 100)
    assert len(many.gained) == len(many.lost) == 64
    assert many.gained[63] == many.lost[63] == 9


def test_a_swap_inside_the_last_slot_is_no_evidence():
    still, swapped = (PredictionDrift(LIMIT, classes=3).add(counts, counts, 200) for counts in ((), (0, 0, 9, 9)))
    assert swapped.value < still.value


def test_a_drift_either_way_is_found():
    assert PredictionDrift(LIMIT, classes=3).add((30, 0, 0), (0, 30, 0), 300).value > 20
    assert PredictionDrift(LIMIT, classes=3).add((0, 30, 0), (30, 0, 0), 300).value > 20


def test_a_limit_of_everything_allows_everything():
    assert PredictionDrift(1.0, classes=2).add((90, 0), (0, 90), 90).value == 1.0


def test_a_test_survives_json():
    test = PredictionDrift(LIMIT, classes=3).add((3, 0, 1), (1, 3, 0), 50)
    fields = json.loads(json.dumps(asdict(test)))
    assert PredictionDrift(**{**fields, "gained": tuple(fields["gained"]), "lost": tuple(fields["lost"])}) == test
