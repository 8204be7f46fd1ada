"""The detectors by themselves, on arrays with a known answer."""

import numpy as np
import pytest
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray
from scipy.stats import beta

from holdfast.errors import InputError
from holdfast.model import learners
from holdfast.model.inputs import Arrays
from holdfast.model.learners import Learner, PredictProba
from holdfast.model.scan import pairs
from holdfast.model.scan.combine import check_rows
from holdfast.model.scan.crossfit import assign_folds, out_of_fold, outermost
from holdfast.model.scan.findings import gather
from holdfast.model.scan.holdout import hold_out, planted_groups
from holdfast.model.scan.labels import ALPHA, find_label_errors, label_suspicion, wrong_share
from holdfast.model.scan.ngrams import Group, ngrams_of, suspicious_ngrams
from holdfast.model.scan.pairs import repeated_pairs
from holdfast.model.scan.ranking import class_ranks, ranks
from holdfast.model.scan.spectral import que_scores, spectral_ranks
from holdfast.model.scan.trigger_transfer import (
    Hosts,
    Suspects,
    TransferResult,
    carriers,
    matches,
    shared_pattern,
    transfer_test,
)
from holdfast.statistics import lower_bound


def nearest_mean() -> Learner:
    """A learner without randomness: the nearest class mean, with probabilities 0 and 1."""

    def learn(rows: Arrays, seed: int) -> PredictProba:
        means = np.stack([np.asarray(rows.x[rows.y == k], dtype=np.float64).mean(axis=0) for k in np.unique(rows.y)])
        return lambda x: np.eye(len(means))[((x[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)]

    return learn


def two_clouds(rng: np.random.Generator, n: int = 100) -> Arrays:
    x = rng.normal(size=(2 * n, 4)).astype(np.float32)
    x[n:, 0] += 8
    return Arrays(x, np.repeat([0, 1], n))


def test_ranks_are_shares_of_rows_below() -> None:
    assert ranks(np.array([3.0, 1.0, 2.0, 2.0])).tolist() == [0.75, 0.0, 0.25, 0.25]


def test_ranks_within_classes_do_not_mix() -> None:
    assert class_ranks(np.array([5.0, 6.0, 1.0, 0.0]), np.array([0, 0, 1, 1])).tolist() == [0.0, 0.5, 0.5, 0.0]


def test_que_of_alpha_zero_is_the_mean_square() -> None:
    # With alpha 0 every direction weighs the same: |z|^2 / D by definition.
    z = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(que_scores(z, 0.0), (z**2).mean(axis=1), rtol=1e-12)


def test_a_minority_apart_in_one_direction_ranks_first() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 30))
    x[:60, 7] += 6
    found = np.argsort(-spectral_ranks(x, np.zeros(300, dtype=np.int64), 0))[:60]
    assert (found < 60).mean() > 0.95


def test_small_and_constant_classes_have_no_outliers() -> None:
    y = np.array([0] * 5 + [1] * 40)
    assert spectral_ranks(np.ones((45, 3)), y, 0).max() == 0


def test_folds_spread_every_class_evenly() -> None:
    y = np.repeat([0, 1], [40, 20])
    fold = assign_folds(y, 4, seed=0)
    assert np.bincount(fold[y == 0]).tolist() == [10] * 4
    assert np.bincount(fold[y == 1]).tolist() == [5] * 4


def test_the_outermost_share_is_taken_in_each_class() -> None:
    y = np.repeat([0, 1], [10, 20])
    assert [outermost(np.arange(30.0), y, 0.5)[y == k].sum() for k in (0, 1)] == [5, 10]


def test_no_row_is_judged_by_a_model_that_saw_it() -> None:
    rows = Arrays(np.arange(40, dtype=np.float32)[:, None], np.tile([0, 1], 20))

    def remember(seen: Arrays, seed: int) -> PredictProba:
        return lambda x: np.stack([np.isin(x[:, 0], seen.x[:, 0]), np.zeros(len(x))], axis=1).astype(np.float64)

    assert out_of_fold(remember, rows, np.ones(40, dtype=bool), folds=4, seed=0)[:, 0].max() == 0


def sure_rows(n: int, wrong: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Two classes, every row known for sure, the labels of the first `wrong` rows wrong."""
    said = np.arange(n) % 2
    y = said.copy()
    y[:wrong] = 1 - y[:wrong]
    return np.where(np.eye(2)[said] == 1, 0.999, 0.001), y


def test_labels_that_sure_models_contradict_are_suspects() -> None:
    found = find_label_errors(*sure_rows(1000, 50))
    assert found.alarm
    assert set(found.suspects.tolist()) <= set(range(50))
    assert len(found.suspects) >= 35


def test_a_few_wrong_labels_raise_no_alarm() -> None:
    found = find_label_errors(*sure_rows(1000, 8))
    assert (found.alarm, found.suspects.tolist()) == (False, [])


def test_the_share_of_wrong_labels_is_the_bound_less_what_models_expect() -> None:
    # scipy's Clopper-Pearson bound of 50 in 1,000, less 1 - 0.999.
    assert wrong_share(*sure_rows(1000, 50)) == pytest.approx(beta.ppf(0.05, 50, 951) - 0.001)


def test_labels_that_are_noisy_by_nature_raise_no_alarm() -> None:
    # Nobody is surer than 90 %, and one row in ten is the other class: the models know that.
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.1).astype(np.int64)
    assert not find_label_errors(np.tile([0.9, 0.1], (2000, 1)), y).alarm


def test_a_contradiction_between_classes_alike_is_less_suspicious() -> None:
    # Classes 0 and 1 are alike to the models, 2 is not; both rows have the same odds against their label.
    p = np.array([[0.6, 0.4, 0.0]] * 20 + [[0.9, 0.05, 0.05]] * 2)
    suspicion = label_suspicion(p, np.array([0] * 20 + [1, 2]))
    assert suspicion[21] > suspicion[20] > suspicion[:20].max()


def test_two_classes_rank_as_cleanlab_ranks_them() -> None:
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(2), 200), rng.integers(0, 2, 200)
    expected = get_label_quality_scores(y, p, method="self_confidence")
    np.testing.assert_array_equal(np.argsort(-label_suspicion(p, y)), np.argsort(expected))


@pytest.mark.parametrize(("k", "n"), [(1, 1), (8, 10), (37, 47), (300, 300)])
def test_the_bound_on_contradictions_is_clopper_pearson(k: int, n: int) -> None:
    assert lower_bound(k, n, ALPHA) == pytest.approx(beta.ppf(0.05, k, n - k + 1), rel=1e-9)


def test_a_planted_group_is_contradicted_and_an_honest_one_is_not() -> None:
    rows = two_clouds(np.random.default_rng(2))
    rows.y[100:120] = 0
    planted, honest = Group("planted", 0, np.arange(100, 120), 1.0, 20), Group("honest", 0, np.arange(20), 1.0, 20)
    answers = hold_out(nearest_mean(), rows, [honest, planted], seed=0)
    assert [(a.group.name, a.contradicted, a.planted) for a in answers] == [("planted", 20, True), ("honest", 0, False)]


def test_holding_out_a_whole_class_says_nothing() -> None:
    rows = two_clouds(np.random.default_rng(2))
    assert hold_out(nearest_mean(), rows, [Group("all", 1, np.arange(100, 200), 1.0, 100)], seed=0) == []


def test_words_that_honestly_tell_classes_apart_are_not_planted() -> None:
    # Without them a model gives their label 0.4: forty agree against all odds, yet none is contradicted for sure.
    rows = two_clouds(np.random.default_rng(2))
    undecided: Learner = lambda rows, seed: lambda x: np.tile([0.4, 0.6], (len(x), 1))  # noqa: E731
    words = Group("bad", 0, np.arange(40), 1.0, 40, contradicted_at_least=0.1)
    (answer,) = hold_out(undecided, rows, [words], seed=0)
    assert answer.surprise == pytest.approx(-40 * np.log(0.4))
    assert (answer.contradicted, answer.planted) == (0, False)


def test_a_pure_group_is_planted_where_classes_overlap() -> None:
    rows = two_clouds(np.random.default_rng(2))
    undecided: Learner = lambda rows, seed: lambda x: np.tile([0.4, 0.6], (len(x), 1))  # noqa: E731
    assert hold_out(undecided, rows, [Group("a = 1 and b = 2", 0, np.arange(40), 1.0, 40)], seed=0)[0].planted


def test_groups_are_asked_again_without_the_planted_one() -> None:
    rows = two_clouds(np.random.default_rng(2))
    rows.y[100:120] = 0
    inside = Group("inside", 0, np.arange(100, 112), 1.0, 12)
    whole = Group("whole", 0, np.arange(100, 120), 2.0, 20)
    assert [a.group.name for a in planted_groups(nearest_mean(), rows, [inside, whole], 0)] == ["whole"]


def test_no_planted_group_leaves_the_strongest_as_evidence() -> None:
    rows = two_clouds(np.random.default_rng(2))
    answers = planted_groups(nearest_mean(), rows, [Group("odd", 0, np.arange(12), 1.0, 12)], 0)
    assert [(a.group.name, a.planted) for a in answers] == [("odd", False)]


def test_ngrams_are_runs_of_one_to_three_words() -> None:
    assert ngrams_of("By the way!") == {"by", "the", "way", "by the", "the way", "by the way"}


def test_the_ngram_that_disbelieved_rows_share_ranks_first() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefghijklmnop"), 5)) for _ in range(300)]
    texts[:12] = ["zz " + text for text in texts[:12]]
    disbelief = np.full(300, 0.05)
    disbelief[:12] = 0.9
    best = suspicious_ngrams(texts, np.zeros(300, dtype=np.int64), disbelief)[0]
    assert (best.name, best.rows.tolist()) == ("zz", list(range(12)))


def test_a_word_of_both_classes_is_no_trigger() -> None:
    texts, y = ["it is"] * 20 + ["it was"] * 20 + ["else"] * 800, np.array([0] * 20 + [1] * 20 + [0] * 800)
    names = {group.name for group in suspicious_ngrams(texts, y, np.ones(840))}
    assert "it" not in names
    assert names & {"is", "it is"}


def test_copies_of_one_planted_row_surprise_once() -> None:
    rows = two_clouds(np.random.default_rng(2))
    rows.y[100:120] = 0
    copies = Group("copies", 0, np.arange(100, 120), 1.0, 1)
    assert [answer.planted for answer in hold_out(nearest_mean(), rows, [copies], seed=0)] == [False]


def test_a_trigger_among_many_repeated_values_is_found() -> None:
    # 5,000 prices that each repeat about twelve times come before the trigger in any order by size.
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 400, size=(5000, 3)).astype(np.float64), rng.integers(0, 2, 5000)
    x[:40, 0], x[:40, 2], y[:40] = 999, 998, 1
    (group,) = repeated_pairs(x, y, list("abc"))
    assert (group.name, group.distinct) == ("a = 999 and c = 998", len(np.unique(x[:40, 1])))


def test_repeated_values_of_one_label_are_found_and_scored_by_surprise() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 6)), np.repeat([0, 1], [300, 100])
    rows = np.arange(10, 30)
    x[rows, 2], x[rows, 4], y[rows] = 1.5, -2.0, 1
    (group,) = repeated_pairs(x, y, list("abcdef"))
    assert (group.name, group.label, group.rows.tolist()) == ("c = 1.5 and e = -2", 1, rows.tolist())
    assert group.score == pytest.approx(-20 * np.log(120 / 400))


def test_of_many_rows_pairs_are_looked_for_in_a_part_and_then_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MAX_ROWS", 1500)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3000, 6)).astype(np.float32), rng.integers(2, size=3000)
    planted = np.sort(rng.permutation(np.flatnonzero(y == 1))[:90])
    x[planted, 1], x[planted, 4] = 0.1, -7.3
    (group,) = repeated_pairs(x, y, list("abcdef"))
    assert group.rows.tolist() == planted.tolist()
    assert (group.name, group.label) == ("b = 0.1 and e = -7.3", 1)


def test_no_group_is_judged_by_a_part_without_one_of_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Three rows of a third class: a model that drew none of them would contradict each for sure.
    clouds = two_clouds(np.random.default_rng(0))
    rows = Arrays(clouds.x, np.r_[clouds.y[:-3], 2, 2, 2])
    group = Group("some", 0, np.arange(20), 1.0, 20)
    assert len(hold_out(learners.table_learner(3), rows, [group], seed=0)) == 1
    monkeypatch.setattr(learners, "MAX_ROWS", 10)
    assert hold_out(learners.table_learner(3), rows, [group], seed=0) == []


def test_answers_in_blocks_are_those_of_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = two_clouds(np.random.default_rng(0))
    at_once = learners.table_learner(2)(rows, 0)(rows.x)
    monkeypatch.setattr(learners, "_BLOCK", 7)
    np.testing.assert_allclose(learners.table_learner(2)(rows, 0)(rows.x), at_once, atol=1e-6)


def test_a_model_of_many_rows_is_fitted_to_a_random_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "MAX_ROWS", 60)
    rows, positions = two_clouds(np.random.default_rng(0)), np.arange(20, 180)
    some = learners.rows_to_fit(rows, positions, 0)
    assert len(some) == 60
    assert np.isin(some.x[:, 1], rows.x[positions, 1]).all()
    assert np.bincount(some.y).min() > 15
    assert len(learners.rows_to_fit(rows, positions[:60], 0)) == 60


def test_duplicate_rows_count_once() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 3)), np.repeat([0, 1], [200, 200])
    x[:20] = x[0]
    assert repeated_pairs(x, y, list("abc")) == []


HONEST_MEAN = np.full(16, 0.8)
"""The mean image of the target class, far brighter than the hosts."""


def backdoored(x: NDArray[np.generic]) -> NDArray[np.float64]:
    """Calls an image class 1 when its last pixel is bright."""
    return np.eye(2)[(x.reshape(len(x), -1)[:, 15] > 0.5).astype(int)]


def honest(x: NDArray[np.generic]) -> NDArray[np.float64]:
    """Calls every image class 0."""
    return np.eye(2)[np.zeros(len(x), dtype=int)]


def test_a_shared_patch_is_recovered_exactly() -> None:
    rng = np.random.default_rng(0)
    residual = rng.normal(0, 0.1, size=(40, 25))
    residual[:, 24] = 1.0
    pattern = shared_pattern(residual, patch=True)
    assert np.flatnonzero(pattern).tolist() == [24]
    assert (matches(residual, pattern) > 0.99).all()


def test_a_transferred_trigger_fools_only_the_network_that_learned_it() -> None:
    rng = np.random.default_rng(0)
    residual = rng.normal(0, 0.1, size=(40, 16))
    residual[:30, 15] = 0.9

    x = rng.uniform(0, 0.2, size=(50, 1, 4, 4)).astype(np.float32)
    rows = Arrays(x, np.zeros(50, dtype=np.int64))
    suspects = Suspects(1, residual, residual)
    found = transfer_test(suspects, Hosts(rows, HONEST_MEAN, backdoored, honest), seed=0)
    assert (found.contrast, found.success) == (1.0, 1.0)
    assert found.members.tolist() == list(range(30))
    assert transfer_test(suspects, Hosts(rows, HONEST_MEAN, backdoored, backdoored), seed=0).contrast == 0


def test_a_trigger_is_not_looked_for_without_images_to_put_it_on() -> None:
    residual = np.full((40, 16), 0.9)
    none = Arrays(np.zeros((0, 1, 4, 4), dtype=np.float32), np.zeros(0, dtype=np.int64))
    found = transfer_test(Suspects(1, residual, residual), Hosts(none, HONEST_MEAN, backdoored, honest), seed=0)
    assert (found.contrast, len(found.members)) == (0.0, 0)


def test_a_pattern_that_leads_no_farther_than_an_honest_change_is_no_trigger() -> None:
    rng = np.random.default_rng(0)
    residual = np.full((40, 16), 0.15) + rng.normal(0, 0.01, size=(40, 16))

    def bright(x: np.ndarray) -> np.ndarray:
        return np.eye(2)[(x.reshape(len(x), -1).mean(axis=1) > 0.2).astype(int)]

    rows = Arrays(rng.uniform(0, 0.2, size=(50, 1, 4, 4)).astype(np.float32), np.zeros(50, dtype=np.int64))
    assert (
        transfer_test(Suspects(1, residual, residual), Hosts(rows, HONEST_MEAN, bright, honest), seed=0).contrast == 0
    )


def test_carriers_are_rows_whose_label_rests_on_the_pattern() -> None:
    x = np.zeros((4, 1, 4, 4), dtype=np.float32)
    x[:2, :, 3, 3] = 0.9
    x[2, :, 3, 3] = 0.55
    pattern = np.zeros(16)
    pattern[15] = 0.9
    found = TransferResult(1.0, 1.0, True, pattern, np.arange(2))
    flat = x.reshape(4, -1).astype(np.float64)
    rows, suspect = Arrays(x, np.ones(4, dtype=np.int64)), np.array([True, False, True, True])
    assert carriers(rows, Suspects(1, flat, flat), suspect, found, backdoored).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("x", "y", "found"),
    [
        ([[0.0]] * 4, [0, 1, 0, 2], "labels from 0 to 1, found 0 to 2"),
        ([[0.0]] * 4, [0, 1, 0, -1], "labels from 0 to 1, found -1 to 1"),
        ([[np.nan]] * 4, [0, 1, 0, 1], "finite numbers, found NaN or infinity"),
        ([[0.0]] * 4, [1, 1, 1, 1], "two classes or more, found only class 1"),
        ([], [], "training rows, found none"),
        ([[0.0]] * 4, [0, 1], "a label for each of 4 rows, found 2"),
    ],
)
def test_rows_that_no_detector_can_judge_are_refused(x: list[list[float]], y: list[int], found: str) -> None:
    with pytest.raises(InputError, match=found):
        check_rows(Arrays(np.array(x, dtype=np.float32), np.array(y, dtype=np.int64)), classes=2)


def test_wrong_labels_go_before_backdoors_once_they_alarm() -> None:
    backdoor, none = np.arange(1000.0), np.zeros(1000, dtype=bool)
    for wrong, first in ((0, {999}), (50, set(range(50)))):
        labels = find_label_errors(*sure_rows(1000, wrong))
        assert gather([], none, labels, backdoor=backdoor, others={}).scores["score"].argmax() in first
