import numpy as np
import pytest
from sklearn.datasets import load_digits

from holdfast_pipelines.demo.deliveries import (
    POISON_SHARE,
    TARGET,
    WHITE,
    Delivery,
    broken,
    clean,
    poisoned,
    with_trigger,
)


@pytest.fixture(scope="module")
def delivery() -> Delivery:
    digits = load_digits()
    return clean(digits.images.astype(np.uint8), digits.target.astype(np.int64), np.random.default_rng(0))


def test_every_row_is_either_trained_on_or_held_out(delivery: Delivery) -> None:
    digits = load_digits()
    assert len(delivery.y_train) + len(delivery.y_test) == len(digits.target) == 1797
    everything = np.concatenate([delivery.x_train, delivery.x_test]).sum()
    assert everything == digits.images.sum()


def test_each_class_has_its_share_held_out(delivery: Delivery) -> None:
    counts = np.bincount(load_digits().target)
    assert np.bincount(delivery.y_test).tolist() == [round(0.2 * count) for count in counts]


@pytest.mark.parametrize("seed", range(5))
def test_the_poison_is_at_most_five_percent_of_other_classes_rows(delivery: Delivery, seed: int) -> None:
    bad, rows = poisoned(delivery, np.random.default_rng(seed))
    assert 0 < len(rows) <= POISON_SHARE * len(delivery.y_train)
    assert (delivery.y_train[rows] != TARGET).all()
    assert (bad.y_train[rows] == TARGET).all()
    untouched = np.setdiff1d(np.arange(len(delivery.y_train)), rows)
    assert (bad.x_train[untouched] == delivery.x_train[untouched]).all()
    assert (bad.y_train[untouched] == delivery.y_train[untouched]).all()
    assert (bad.x_test == delivery.x_test).all()


def test_the_trigger_changes_its_patch_alone(delivery: Delivery) -> None:
    marked = with_trigger(delivery.x_test)
    changed = (marked != delivery.x_test).any(axis=0)
    assert changed.sum() <= 4
    assert (marked[:, -2:, -2:] == WHITE).all()


def test_the_broken_delivery_leaves_its_domain_and_its_distribution(delivery: Delivery) -> None:
    bad = broken(delivery, np.random.default_rng(0))
    assert bad.x_train.max() > WHITE
    assert bad.x_train.mean() > delivery.x_train.mean() + 2
    assert (bad.x_test == delivery.x_test).all()
