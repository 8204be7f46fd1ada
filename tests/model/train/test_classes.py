"""Rare classes in training: weights by class, rows set apart in proportion, and the epoch that is kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from holdfast.artifacts.documents import InputSpec, ThreatModel
from holdfast.errors import WorkloadError
from holdfast.modality.ball import Ball
from holdfast.model.inputs import Arrays
from holdfast.model.networks import logits
from holdfast.model.train.adversarial import Epoch, Training, balanced_accuracy, split_selection
from holdfast.model.train.recipes import class_weights
from holdfast.workload.schema import RecipeConfig

POINT = InputSpec(modality="image", shape=(1, 1, 12), dtype="float32", lower=-9, upper=9)
CLASSES = ("ok", "fraud")


def ball() -> Ball:
    return Ball.of(ThreatModel(norm="linf", epsilon="1/10", unit="any"), POINT, "cpu")


def frauds(count: int, seed: int) -> Arrays:
    """3 % of the rows lie 0.9 to one side in each of 12 columns: easy to tell apart, easy to leave out."""
    rng = np.random.default_rng(seed)
    y = (rng.random(count) < 0.03).astype(np.int64)
    x = rng.normal(size=(count, 1, 1, 12)) + 0.9 * y[:, None, None, None]
    return Arrays(x.astype(np.float32), y)


def trained(config: RecipeConfig) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    training = Training(net, frauds(2000, 0), ball(), config, seed=0, classes=CLASSES)
    while not training.finished:
        training.advance()
    training.net.load_state_dict(training.state.best)
    return training.net.eval()


def recall(net: nn.Module) -> float:
    rows = frauds(4000, 1)
    answers = logits(net, rows.x, device="cpu").argmax(1)
    return float((answers[rows.y == 1] == 1).mean())


@pytest.mark.parametrize("name", ["standard", "pgd", "trades", "ibp"])
def test_balanced_weights_find_the_rare_class_that_is_left_out_without_them(name: str) -> None:
    config = RecipeConfig.model_validate({"recipe": name, "epochs": 3, "attack_steps": 2, "learning_rate": 0.02})
    without = recall(trained(config))
    weighed = recall(trained(config.model_copy(update={"class_weights": "balanced"})))
    assert weighed > 0.8
    assert weighed > without + 0.2


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    y = torch.tensor([0] * 90 + [1] * 8 + [2] * 2)
    found = class_weights(y, ("a", "b", "c"), "balanced")
    assert found is not None
    assert found.numpy() == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=y.numpy()))


def test_weights_by_name_keep_their_ratio_and_a_mean_of_one() -> None:
    y = torch.tensor([0] * 97 + [1] * 3)
    found = class_weights(y, CLASSES, {"fraud": 20.0})
    assert found is not None
    assert float(found[1] / found[0]) == pytest.approx(20)
    assert float(found[y].mean()) == pytest.approx(1)
    assert class_weights(y, CLASSES, "none") is None


def test_a_weight_for_an_unknown_class_is_refused() -> None:
    with pytest.raises(WorkloadError, match="train.class_weights: expected classes of .*'fraud'.*, found 'frauds'"):
        class_weights(torch.tensor([0, 1]), CLASSES, {"frauds": 2.0})


@pytest.mark.parametrize("seed", range(5))
def test_the_rows_set_apart_hold_their_share_of_a_rare_class(seed: int) -> None:
    y = np.array([0] * 970 + [1] * 30)
    rows = Arrays(np.arange(1000, dtype=np.float32)[:, None], y)
    fitted, apart = split_selection(rows, RecipeConfig(selection_rows=200), seed)
    assert sorted([*fitted.x[:, 0].tolist(), *apart.x[:, 0].tolist()]) == list(range(1000))
    assert (len(apart), int(apart.y.sum())) == (200, 6)


def test_balanced_accuracy_is_the_mean_of_the_recalls() -> None:
    right, y = torch.tensor([True, True, True, False, False, True]), torch.tensor([0, 0, 0, 0, 3, 3])
    assert balanced_accuracy(right, y) == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_an_epoch_at_chance_is_not_kept_however_robust_it_is() -> None:
    # Constant answers are right in 97 of 100 rows under any attack; the useful epoch is right in fewer.
    training = Training(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), frauds(200, 0), ball(), RecipeConfig(), seed=0)
    constant = Epoch(1, 0.1, clean=97, robust=97, rows=100, clean_balanced=0.5, robust_balanced=0.5)
    useful = Epoch(2, 0.3, clean=88, robust=80, rows=100, clean_balanced=0.85, robust_balanced=0.7)
    training.state.curve = [constant, useful, replace(constant, epoch=3)]
    assert training.best_epoch is useful
    training.config = RecipeConfig(recipe="standard")
    assert training.best_epoch is useful
