"""Copies of models whose boundary is known, and the questions that are put to them."""

import numpy as np
import pytest

from holdfast.artifacts.documents import Feature, InputSpec
from holdfast.model.extract.queries import noise, pictures, shuffled, shuffled_words
from holdfast.model.extract.stealing import Augmented, Prepared, Reach, given_out, steal
from holdfast.model.extract.surrogate import NetworkSettings, NetworkSurrogate, TextSurrogate

TABLE = InputSpec(
    modality="tabular", shape=(4,), dtype="float32",
    features=tuple(Feature(name=f"f{i}", lower=-3, upper=3, scale=1) for i in range(4)),
)  # fmt: skip


def linear(x):
    """A model that is a plane: the class is whether the first two values sum to more than 0."""
    one = 1 / (1 + np.exp(-4.0 * (x[:, 0] + x[:, 1])))
    return np.stack([1 - one, one], axis=1).astype(np.float64)


def parity(x):
    """One that depends on bits far behind the decimal point: nothing can be learned of it."""
    one = (np.abs(x * 4096).astype(np.int64).sum(1) % 2).astype(np.float64)
    return np.stack([1 - one, one], axis=1)


def rows(count, seed):
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def copy(seed=0):
    return NetworkSurrogate(NetworkSettings("mlp", TABLE, 2, 5, "cpu"), seed)


def agreements(model, seed=0):
    judged = rows(400, 1)
    questions = Prepared(rows(1000, 2))
    found = steal(questions, copy(seed), model, judged=(judged, model(judged).argmax(1)), counts=(30, 300, 1000))
    return [(one.queries, one.agreed) for one in found]


def test_a_simple_model_is_copied_and_one_that_cannot_be_learned_is_not():
    easy, hard = agreements(linear), agreements(parity)
    assert [queries for queries, _ in easy] == [30, 300, 1000]
    assert easy[-1][1] >= 380
    assert hard[-1][1] <= 260, "chance is 200 of 400"


def test_equal_seeds_give_equal_copies():
    assert agreements(linear) == agreements(linear)


def test_a_strategy_without_more_questions_ends_where_they_end():
    judged = rows(50, 1)
    found = steal(
        Prepared(rows(120, 2)), copy(), linear, judged=(judged, linear(judged).argmax(1)), counts=(100, 300, 1000)
    )
    assert [one.queries for one in found] == [100, 120]


def test_augmented_rows_are_one_step_from_rows_before_and_keep_the_limits():
    learner, start = copy(), rows(40, 3).clip(-3, 3)
    learner.learn(start, linear(start))
    reach = Reach(np.array([0.1, 0.1, 0.0, 5.0], np.float32), np.float32(-3), np.float32(3))
    found = Augmented(start, learner, reach, np.random.default_rng(0)).next(start, 25)
    moved = np.abs(found - start[-25:])
    assert moved[:, :2] == pytest.approx(0.1, abs=1e-5)
    assert (moved[:, 2] == 0).all()
    assert np.abs(found).max() <= 3


def test_messages_are_copied_by_their_words():
    from holdfast.modality.text import decode_text, encode_text

    chance = np.random.default_rng(0)
    words = ["win", "cash", "dinner", "home", "you", "prize"]
    texts = [" ".join(chance.choice(words, 4)) for _ in range(300)]

    def model(x):
        one = np.array([float("win" in text.split()) for text in decode_text(x)])
        return np.stack([1 - one, one], axis=1)

    x = encode_text(texts, 40)
    learner = TextSurrogate(2, 0)
    learner.learn(x[:5] * 0 + x[:1], model(x[:1].repeat(5, 0)))
    assert len(set(learner.labels(x).tolist())) == 1
    learner.learn(x[:200], model(x[:200]))
    assert (learner.labels(x[200:]) == model(x[200:]).argmax(1)).mean() >= 0.97


def test_what_is_given_out_sums_to_one_and_holds_no_more_than_it_should():
    p = np.random.default_rng(0).dirichlet(np.ones(12), size=200)
    assert given_out(p, "full", 1) is p
    label = given_out(p, "label", 1)
    assert set(label.ravel().tolist()) == {0.0, 1.0}
    assert (label.argmax(1) == p.argmax(1)).all()
    rounded = given_out(p, "rounded", 1)
    assert rounded.sum(1) == pytest.approx(1)
    assert len(np.unique(rounded.round(9)[p.round(1).sum(1).round(1) == 1.0])) <= 11
    flat = np.full((1, 30), 1 / 30)
    assert given_out(flat, "rounded", 1).max() == 1, "all round to 0: the class is all that is left"


def test_noise_keeps_to_the_limits_of_each_place_and_shuffled_rows_to_its_values():
    chance, x = np.random.default_rng(0), rows(50, 4)
    drawn = noise(x, 200, chance)
    assert drawn.dtype == np.float32
    assert (drawn >= x.min(0)).all()
    assert (drawn <= x.max(0)).all()
    mixed = shuffled(x, 200, chance)
    assert all(set(mixed[:, i].tolist()) <= set(x[:, i].tolist()) for i in range(4))


def test_pictures_have_the_shape_and_the_range_of_images_and_differ():
    found = pictures((3, 12, 10), 40, np.random.default_rng(0))
    assert found.shape == (40, 3, 12, 10)
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1
    assert len(np.unique(found.reshape(40, -1), axis=0)) == 40


def test_shuffled_messages_have_the_words_of_the_others():
    found = shuffled_words(["a b c", "d e", ""], 50, np.random.default_rng(0))
    assert len(found) == 50
    assert {word for text in found for word in text.split()} <= set("abcde")
    assert {len(text.split()) for text in found} <= {1, 2, 3}
