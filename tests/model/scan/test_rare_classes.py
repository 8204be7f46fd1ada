"""No class is suspect for being rare: labels are judged on the rows of their own class."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import check_grad
from scipy.special import expit
from scipy.stats import binom, chi2
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from holdfast.model.inputs import Arrays
from holdfast.model.learners import table_learner
from holdfast.model.scan import contamination
from holdfast.model.scan.contamination import BinnedRows, binned, fit, log_odds_of
from holdfast.model.scan.crossfit import out_of_fold
from holdfast.model.scan.findings import gather
from holdfast.model.scan.labels import EVIDENCE, FALSE_ALARM_RATE, LabelErrors, find_label_errors
from holdfast.model.scan.pairs import repeated_pairs


def table(rate: float, shift: float, seed: int, n: int = 1000) -> Arrays:
    """Eight columns of noise; the rare class lies `shift` standard deviations apart in four of them."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < rate).astype(np.int64)
    x = rng.normal(size=(n, 8))
    x[:, :4] += shift * y[:, None]
    return Arrays(x.astype(np.float32), y)


def judged(rows: Arrays) -> LabelErrors:
    with threadpool_limits(1):
        belief = out_of_fold(table_learner(2), rows, np.ones(len(rows), dtype=bool), folds=2, seed=0)
    return find_label_errors(belief, rows.y)


@pytest.mark.parametrize(("rate", "shift"), [(0.03, 0.0), (0.04, 1.0), (0.03, 2.0)])
def test_a_rare_class_is_not_suspect_for_being_rare(rate: float, shift: float) -> None:
    found = judged(table(rate, shift, seed=2))
    assert (found.alarm, found.suspects.tolist()) == (False, [])


def test_a_rare_class_does_not_come_first_in_the_ranking() -> None:
    rows = table(0.05, 0.0, seed=3)
    labels = judged(rows)
    found = gather([], np.zeros(len(rows), dtype=bool), labels, backdoor=np.zeros(len(rows)), others={})
    first = np.argsort(-found.scores["score"], kind="stable")[:100]
    # Of 100 rows that are drawn without looking, 5 would be rare.
    assert binom.sf(int(rows.y[first].sum()) - 1, 100, rows.y.mean()) > 0.001


def test_a_rare_class_without_signal_is_not_judged() -> None:
    found = judged(table(0.05, 0.0, seed=3))
    assert [one.model for one in found.classes] == [None, None]
    assert "models cannot tell its rows from others" in found.classes[1].not_judged


def test_a_class_of_few_rows_is_not_judged_and_the_others_are() -> None:
    found = judged(table(0.013, 3.0, seed=0))
    assert found.classes[1].rows < 20
    assert found.classes[1].not_judged == "too few rows: 20 are needed"
    assert found.classes[0].model is not None


def test_wrong_labels_in_a_rare_class_are_found() -> None:
    # 10 of 60 positives are negatives: Menon et al.'s noise model with u = 10 in 1,950.
    rows = table(0.025, 2.5, seed=1, n=2000)
    wrong = np.random.default_rng(0).choice(np.flatnonzero(rows.y == 0), 10, replace=False)
    rows.y[wrong] = 1
    found = judged(rows)
    assert [one.alarm for one in found.classes] == [False, True]
    right = set(found.suspects.tolist()) & set(wrong.tolist())
    assert len(right) >= 5
    assert len(right) >= 0.8 * len(found.suspects)


def test_rare_rows_hidden_in_a_large_class_are_found() -> None:
    said, y, wrong = sure_and_hidden(3000, rare=150, hidden=50)
    found = find_label_errors(said, y)
    assert [one.alarm for one in found.classes] == [True, False]
    assert set(found.suspects.tolist()) <= set(wrong.tolist())
    assert len(found.suspects) >= 20


def sure_and_hidden(
    n: int, *, rare: int, hidden: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Beliefs about a rare class that models know well, and labels that call `hidden` of its rows the large class."""
    rng = np.random.default_rng(3)
    true = (np.arange(n) < rare).astype(np.int64)
    belief = expit(np.where(true == 1, rng.normal(4, 1, n), rng.normal(-6, 1, n)))
    y = true.copy()
    y[:hidden] = 0
    return np.stack([1 - belief, belief], axis=1), y, np.arange(hidden)


def test_without_wrong_labels_the_curve_is_logistic_regression() -> None:
    # scikit-learn's, without a penalty; the bins are as fine as the log-odds here.
    rng = np.random.default_rng(0)
    odds = np.round(rng.normal(-1, 1, 4000), 1)
    labelled = rng.random(4000) < expit(0.4 + 0.8 * odds)
    oracle = LogisticRegression(C=np.inf).fit(odds[:, None], labelled)
    found = fit(binned(odds, labelled), wrongly_in=0.0)
    assert found.wrongly_out == pytest.approx(0, abs=0.02)
    assert (found.intercept, found.slope) == pytest.approx((oracle.intercept_[0], oracle.coef_[0, 0]), abs=0.05)


def test_the_gradient_is_that_of_the_likelihood() -> None:
    rows = BinnedRows(np.array([-3.0, -1, 0, 2]), np.array([1.0, 4, 9, 30]), np.array([60.0, 40, 30, 34]))
    value, slope = (lambda at: contamination._cost(at, rows)[0]), (lambda at: contamination._cost(at, rows)[1])
    assert check_grad(value, slope, np.array([0.3, 0.9, 0.02, 0.1])) < 1e-3


def test_planted_shares_are_recovered() -> None:
    rng = np.random.default_rng(1)
    odds = np.clip(rng.normal(-2, 3, 40_000), -11, 11)
    q = expit(odds)
    labelled = rng.random(40_000) < 0.03 * (1 - q) + 0.9 * q
    found = fit(binned(odds, labelled))
    assert (found.wrongly_in, found.wrongly_out) == pytest.approx((0.03, 0.1), abs=0.01)


def test_the_evidence_is_half_the_stated_rate_of_its_limit() -> None:
    assert chi2.sf(EVIDENCE, 1) / 2 == pytest.approx(FALSE_ALARM_RATE / 2, rel=0.02)


def test_log_odds_of_sure_answers_are_finite() -> None:
    assert log_odds_of(np.array([0.0, 0.5, 1.0])).tolist() == [-12, 0, 12]


def test_values_that_most_of_a_rare_class_share_are_no_trigger() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1000, 6)), (np.arange(1000) < 30).astype(np.int64)
    x[:20, 2], x[:20, 4] = 1.5, -2.0
    assert repeated_pairs(x, y, list("abcdef")) == []
    x[12:20, 2] = 2.0 + np.arange(8)
    (group,) = repeated_pairs(x, y, list("abcdef"))
    assert group.rows.tolist() == list(range(12))
