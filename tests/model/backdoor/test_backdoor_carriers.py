from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from holdfast.artifacts.documents import Count
from holdfast.model.backdoor.carriers import (
    FALSE_ALARMS,
    FEWEST,
    Asked,
    Candidate,
    CarrierTest,
    Positions,
    carrier_test,
    choose,
    distinct_rows,
)
from holdfast.model.inputs import Arrays
from holdfast.statistics import chance_of_larger_share

ROWS = 400


def rows(seed: int = 0) -> Arrays:
    """Class 1 where the first column is above 0; the second holds 9 in rows that carry a mark."""
    x = np.random.default_rng(seed).normal(size=(ROWS, 5)).astype(np.float32)
    return Arrays(x, (x[:, 0] > 0).astype(np.int64))


def by_first_column(rows: Arrays, seed: int) -> "object":
    """A reference that needs no fit."""
    return lambda x: (x[:, 0] > 0).astype(np.int64)


def asked(training: Arrays) -> Asked:
    return Asked(training, rows(1), by_first_column, seed=0)  # type: ignore[arg-type]


def candidate(training: Arrays, carriers: Positions, *, dependent: int = 0) -> Candidate[str]:
    own = carriers[training.y[carriers] == 1]
    rest = np.delete(training.x, 1, axis=1)
    return Candidate("mark", "mark", 1.0, Count(k=9, n=9), carriers, own, dependent, lambda: rest)


def planted(count: int) -> tuple[Arrays, Positions]:
    """So many rows of class 0 that are called 1."""
    training = rows()
    carriers = np.flatnonzero(training.y == 0)[:count]
    y = training.y.copy()
    y[carriers] = 1
    return Arrays(training.x, y), carriers


@pytest.mark.parametrize(("first", "second"), [((9, 12), (3, 80)), ((0, 5), (0, 9)), ((40, 40), (1, 2))])
def test_the_p_value_is_that_of_fishers_exact_test(first: tuple[int, int], second: tuple[int, int]) -> None:
    table = [[k, n - k] for k, n in (first, second)]
    ours = chance_of_larger_share(*first, *second)
    assert ours == pytest.approx(fisher_exact(table, alternative="greater")[1])


def test_carriers_whose_label_nothing_else_supports_are_significant() -> None:
    training, carriers = planted(30)
    test = carrier_test(candidate(training, carriers), 1, asked(training))
    assert test is not None
    assert test.carriers.share == 1
    assert test.others.k == 0
    assert test.significant(FALSE_ALARMS / 6)


def test_honest_carriers_are_not() -> None:
    training = rows()
    test = carrier_test(candidate(training, np.flatnonzero(training.y == 1)[:30]), 1, asked(training))
    assert test is not None
    assert (test.carriers.k, test.p_value) == (0, 1)
    assert not test.significant(FALSE_ALARMS)


def test_fewer_carriers_than_needed_prove_nothing() -> None:
    training, carriers = planted(FEWEST - 1)
    test = carrier_test(candidate(training, carriers), 1, asked(training))
    assert test is not None
    assert not test.significant(1.0)


def test_what_a_whole_class_shares_is_no_trigger() -> None:
    training = rows()
    test = carrier_test(candidate(training, np.flatnonzero(training.y == 1)), 1, asked(training))
    assert test is not None
    assert not test.significant(1.0)
    assert not candidate(training, np.flatnonzero(training.y == 1)).plausible(ROWS)
    assert candidate(training, np.flatnonzero(training.y == 1)[:30]).plausible(ROWS)


def test_a_word_of_both_classes_that_most_messages_do_not_need_is_no_trigger() -> None:
    training, carriers = planted(30)
    both = np.concatenate([carriers, np.flatnonzero(training.y == 0)[:5]])
    found = [
        replace(candidate(training, rows, dependent=dependent), least_dependent=0.5)
        for rows, dependent in ((both, 14), (both, 15), (carriers, 0))
    ]
    assert [one.plausible(ROWS) for one in found] == [False, True, True]


def test_without_the_carriers_other_classes_must_be_left() -> None:
    training = rows()
    carriers = np.concatenate([np.flatnonzero(training.y == 0), np.flatnonzero(training.y == 1)[:30]])
    assert carrier_test(candidate(training, carriers), 1, asked(training)) is None


def test_where_few_rows_of_the_class_are_held_out_training_rows_are_asked_too() -> None:
    training, carriers = planted(30)
    few = rows(1).take(np.flatnonzero(rows(1).y == 1)[:5])
    test = carrier_test(candidate(training, carriers), 1, Asked(training, few, by_first_column, seed=0))  # type: ignore[arg-type]
    assert test is not None
    assert test.others.n > 100
    assert test.others.k == 0
    assert test.significant(FALSE_ALARMS / 6)


def test_a_small_difference_or_carriers_of_other_labels_flag_nothing() -> None:
    certain = {"carriers": Count(k=60, n=200), "others": Count(k=20, n=200), "p_value": 1e-6}
    assert not CarrierTest(**certain, labelled=True).significant(0.01)  # type: ignore[arg-type]
    large = {**certain, "carriers": Count(k=90, n=200)}
    assert CarrierTest(**large, labelled=True).significant(0.01)  # type: ignore[arg-type]
    assert not CarrierTest(**large, labelled=False).significant(0.01)  # type: ignore[arg-type]


def test_the_level_is_kept_where_carriers_are_rows_like_others() -> None:
    # Any rows of the class, a reference that is wrong once in five: 2,000 tests at 5 %, standard error 0.5 points.
    rng = np.random.default_rng(0)
    wrong: NDArray[np.bool_] = rng.random((2000, 140)) < 0.2
    chances = [chance_of_larger_share(int(w[:40].sum()), 40, int(w[40:].sum()), 100) for w in wrong]
    assert np.mean(np.array(chances) <= 0.05) <= 0.05


def test_near_copies_count_once() -> None:
    rng = np.random.default_rng(0)
    rest = rng.normal(size=(300, 6))
    rest[:30] = rest[0] + 0.01 * rng.normal(size=(30, 6))
    assert len(distinct_rows(rest, np.arange(30))) < FEWEST
    assert len(distinct_rows(rest, np.arange(30, 60))) > 20


def test_the_most_dependent_candidates_are_tested_and_each_group_of_rows_once() -> None:
    training = rows()
    own = np.flatnonzero(training.y == 1)
    groups = [own[:40], own[2:42], own[60:100], own[100:140], own[140:180]]
    found = [candidate(training, group, dependent=d) for group, d in zip(groups, (30, 29, 5, 20, 10), strict=True)]
    assert [c.own[0] for c in choose(found)] == [groups[i][0] for i in (0, 3, 4)]
