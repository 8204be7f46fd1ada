"""Against brute force over all draws, and by simulation."""

from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.monitor.losses import STAKES, Labelled, LossEvidence, Moments, chances, waiting

GUESSES = st.lists(st.floats(0, 1), min_size=2, max_size=8).map(np.array)


def rows(accuracy: float, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Losses, and the guesses of a calibrated model."""
    guesses = rng.beta(1 - accuracy, accuracy, count)
    return (rng.random(count) < guesses).astype(float), guesses


def labelled(accuracy: float, draws: int, rng: np.random.Generator) -> Labelled:
    losses, guesses = rows(accuracy, 2000, rng)
    drawn = rng.choice(2000, draws, p=chances(guesses))
    return Labelled.drawn(losses[drawn], drawn, guesses)


@given(guesses=GUESSES)
def test_every_row_can_be_drawn(guesses: np.ndarray) -> None:
    found = chances(guesses)
    assert found.sum() == pytest.approx(1)
    assert found.min() >= 0.5 / len(guesses) - 1e-12


@given(guesses=GUESSES, weight=st.floats(0, 1), data=st.data())
def test_the_mean_over_all_draws_is_the_mean_loss(guesses: np.ndarray, weight: float, data: st.DataObject) -> None:
    losses = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(guesses), max_size=len(guesses))))
    batch = Labelled.drawn(losses, np.arange(len(guesses)), guesses)
    x = batch.factors * (losses - weight * batch.guesses) + weight * batch.mean_guess
    assert chances(guesses) @ x == pytest.approx(losses.mean(), abs=1e-9)
    assert x.min() >= -weight * batch.reach - 1e-9


@given(guesses=GUESSES, data=st.data())
def test_no_stake_gains_on_average_while_the_mean_loss_is_at_most_the_bound(
    guesses: np.ndarray, data: st.DataObject
) -> None:
    losses = np.array(data.draw(st.lists(st.floats(0, 0.99), min_size=len(guesses), max_size=len(guesses))))
    bound = max(float(losses.mean()), 1e-3)
    held = LossEvidence(bound, Moments(60, 6.0, 7.0, 3.0, 2.0))
    one_draw = [held.add(Labelled.drawn(losses[[i]], np.array([i]), guesses)).value for i in range(len(guesses))]
    assert chances(guesses) @ one_draw <= held.value * (1 + 1e-9)


def test_labels_without_guesses_bet_on_the_losses_themselves() -> None:
    evidence = LossEvidence(0.1).add(Labelled.alone(np.array([1.0, 0.0, 0.0])))
    # By hand: each stake c pays 1 + c (l - u) / u on the money that is in it.
    money = 0.5 + waiting(0) - waiting(3)
    paid = [money * (1 + 9 * c) * (1 - c) ** 2 for c in STAKES]
    assert evidence.value == pytest.approx(np.mean(paid) + waiting(3))
    assert exp(LossEvidence(0.1).logs[0]) + waiting(0) == pytest.approx(1)


def test_the_weight_is_the_slope_of_losses_over_guesses() -> None:
    rng = np.random.default_rng(0)
    guesses = rng.random(500)
    losses = 0.4 * guesses + rng.random(500) * 0.5
    assert Moments().add(losses, guesses).weight == pytest.approx(np.polyfit(guesses, losses, 1)[0])


def test_a_guess_that_never_varies_gets_no_weight() -> None:
    assert Moments().add(np.ones(100), np.full(100, 0.3)).weight == 0


def test_a_model_at_its_bound_is_accused_as_seldom_as_ville_has_it() -> None:
    rng, accused = np.random.default_rng(0), 0
    for _ in range(200):
        evidence, highest = LossEvidence(0.05), 0.0
        for _ in range(10):
            evidence = evidence.add(labelled(0.95, 40, rng))
            highest = max(highest, evidence.value)
        accused += highest >= 20
    assert accused <= 18  # at most 10 are expected; 18 lies 2.6 standard deviations above


def test_five_points_below_the_bound_are_found_within_400_drawn_labels() -> None:
    rng = np.random.default_rng(0)
    evidence = LossEvidence(0.0588)  # 1900 of 2000 right: the lower 95 % bound of the accuracy
    for _ in range(8):
        evidence = evidence.add(labelled(0.90, 50, rng))
    assert evidence.value > 250


def test_labels_of_complaints_alone_are_no_random_sample() -> None:
    # Only wrong answers are complained about: without the caller's word that they were selected this looks like proof.
    assert LossEvidence(0.05).add(Labelled.alone(np.ones(10))).value > 250
