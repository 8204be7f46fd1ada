from statistics import harmonic_mean

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from holdfast.artifacts.documents import InputSpec, ThreatModel
from holdfast.errors import ModelError
from holdfast.modality.ball import Ball
from holdfast.modality.text import HIDDEN, PAD
from holdfast.model.attack.losses import Ascent, cross_entropy
from holdfast.model.attack.pgd import pgd
from holdfast.model.inputs import Arrays
from holdfast.model.train.adversarial import (
    READ_EVERY,
    Training,
    epoch_value,
    lucky_accuracy,
    one_cycle,
    split_selection,
)
from holdfast.model.train.recipes import with_noise
from holdfast.workload.schema import RecipeConfig

PLANE = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")
MESSAGE = InputSpec(modality="text", shape=(20,), dtype="int64")


def ball(epsilon: str = "1/10") -> Ball:
    return Ball.of(ThreatModel(norm="linf", epsilon=epsilon, unit="any"), PLANE, "cpu")


def net(dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Dropout(dropout), nn.Linear(24, 2))


def rows(count: int = 200) -> Arrays:
    """Two classes: a bright bar whose place tells the class, and faint pixels everywhere that tell it too."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, count)
    x = 0.3 + 0.2 * y[:, None, None, None] + 0.02 * rng.random((count, 1, 8, 8))
    x[np.arange(count), 0, y * 7, :4] += 0.35
    return Arrays(x.astype(np.float32), y)


def finished(training: Training) -> dict[str, Tensor]:
    while not training.finished:
        training.advance()
    return training.state.best


def recipe(**changes: float | str) -> RecipeConfig:
    return RecipeConfig.model_validate({"epochs": 6, "batch": 32, "attack_steps": 3, "learning_rate": 0.01} | changes)


@settings(deadline=None, max_examples=8)
@given(cut=st.integers(1, 29), noise=st.sampled_from([0.0, 0.2]))
def test_a_resumed_training_ends_with_the_same_bits(cut: int, noise: float) -> None:
    config = recipe(noise=noise)
    whole = finished(Training(net(0.3), rows(), ball(), config, seed=5))
    first = Training(net(0.3), rows(), ball(), config, seed=5)
    for _ in range(cut):
        first.advance()
    second = Training(net(0.3), rows(), ball(), config, seed=5)
    second.restore_state(*first.export_state())
    resumed = finished(second)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_trained_network_stands_where_a_standard_one_falls() -> None:
    accuracy = {}
    for name in ("standard", "pgd"):
        training = Training(net(), rows(600), ball("3/20"), recipe(recipe=name, epochs=20), seed=0)
        training.net.load_state_dict(finished(training))
        x, y = torch.from_numpy(rows(600).x), torch.from_numpy(rows(600).y)
        found = pgd(
            training.net.eval(),
            x,
            y,
            ball("3/20"),
            Ascent(cross_entropy, 20),
            generator=torch.Generator().manual_seed(0),
        )
        accuracy[name] = float((training.net(found).argmax(1) == y).float().mean())
    # An attacker with 0.15 turns every faint pixel (0.2 apart) round, but not the bar (0.35 high).
    assert accuracy["standard"] < 0.6
    assert accuracy["pgd"] > 0.95


def test_a_loss_that_is_not_finite_stops_with_epoch_and_batch() -> None:
    broken = net()
    training = Training(broken, rows(), ball(), recipe(), seed=0)
    training.advance()
    nn.init.constant_(broken[4].bias, float("nan"))
    with pytest.raises(ModelError, match="epoch 1, batch 2: expected a finite loss, found nan; lower"):
        training.advance()


def test_losses_that_are_read_late_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, late = (Training(net(), rows(), ball(), recipe(), seed=0) for _ in range(2))
    best = finished(at_once)
    monkeypatch.setitem(READ_EVERY, "cpu", 32)
    assert all(torch.equal(best[name], value) for name, value in finished(late).items())
    assert late.state.curve == at_once.state.curve


def test_a_loss_that_is_read_late_is_named_with_its_own_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READ_EVERY, "cpu", 32)
    broken = net()
    training = Training(broken, rows(), ball(), recipe(), seed=0)
    training.advance()
    nn.init.constant_(broken[4].bias, float("nan"))
    with pytest.raises(ModelError, match="epoch 1, batch 2: expected a finite loss, found nan; lower"):
        finished(training)


def test_the_rows_set_apart_are_at_most_a_fifth_and_never_fitted() -> None:
    data = Arrays(np.arange(100)[:, None], np.zeros(100, dtype=np.int64))
    fitted, apart = split_selection(data, RecipeConfig(selection_rows=500), seed=3)
    assert len(apart) == 20
    assert sorted([*fitted.x[:, 0], *apart.x[:, 0]]) == list(range(100))


def test_the_best_epoch_has_the_highest_harmonic_mean_of_both_balanced_accuracies() -> None:
    training = Training(net(), rows(), ball(), recipe(), seed=0)
    finished(training)
    luck = lucky_accuracy(training.apart[1].bincount().tolist())
    pairs = [(row.clean_balanced, row.robust_balanced) for row in training.state.curve]
    shares = [[max(0, value - luck) for value in pair] for pair in pairs]
    means = [harmonic_mean(pair) for pair in shares]
    assert means[training.best_epoch.epoch - 1] == pytest.approx(max(means))


def test_a_constant_answer_is_the_worst_epoch() -> None:
    constant, learning, half_held, held = (0.5, 0.5), (0.69, 0.39), (0.72, 0.51), (0.70, 0.62)
    values = [epoch_value(*pair, 0.5) for pair in (constant, learning, half_held, held)]
    assert values == sorted(values)
    assert len(set(values)) == 4


def test_a_little_luck_is_worth_less_than_what_was_learned() -> None:
    # Epochs 6, 10 and 20 of a default training on 640 sentences: the first answers nearly everything alike.
    lucky, chance, learned = (0.536, 0.506), (0.505, 0.500), (0.667, 0.391)
    values = [epoch_value(*pair, lucky_accuracy([80, 80])) for pair in (chance, lucky, learned)]
    assert values == sorted(values)


def test_luck_is_one_standard_error_above_chance() -> None:
    rng = np.random.default_rng(0)
    guesses = [rng.binomial(count, 1 / 3, 20_000) / count for count in (10, 40, 200)]
    found = np.mean(guesses, axis=0)
    assert lucky_accuracy([10, 40, 200]) == pytest.approx(found.mean() + found.std(), abs=0.002)
    assert lucky_accuracy([50]) == 1.0


def test_one_cycle_rises_for_three_tenths_and_ends_at_zero() -> None:
    rates = [one_cycle(p / 100) for p in range(101)]
    assert np.argmax(rates) == 30
    assert max(rates) == 1.0
    assert rates[100] == pytest.approx(0)
    assert rates[0] == pytest.approx(0.05)


def test_noise_touches_half_of_the_rows_with_the_asked_deviation() -> None:
    x = torch.full((4000, 1, 8, 8), 0.5)
    delta = with_noise(x, 0.2, ball(), torch.Generator().manual_seed(0)) - x
    touched = delta.flatten(1).abs().amax(1) > 0
    assert float(touched.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(delta[touched].std()) == pytest.approx(0.2, rel=0.01)


def test_hidden_characters_are_a_share_of_half_of_the_messages_and_never_padding() -> None:
    edits = Ball.of(ThreatModel(norm="edits", epsilon="2", unit="characters"), MESSAGE, "cpu")
    ids = torch.full((2000, 20), 99)
    ids[:, 15:] = PAD
    found = with_noise(ids, 0.3, edits, torch.Generator().manual_seed(0))
    hidden = (found == HIDDEN)[:, :15].float().mean(1)
    assert (found[:, 15:] == PAD).all()
    assert float(hidden[hidden > 0].mean()) == pytest.approx(0.3, abs=0.02)
