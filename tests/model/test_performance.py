"""How well the classes are told apart: counts by hand, areas by their definition."""

import numpy as np
import pytest

from holdfast.artifacts.documents import Count
from holdfast.model.performance import performance

Y = np.array([0, 0, 0, 0, 0, 0, 1, 1], dtype=np.int64)
Z = np.array([[2, 0], [2, 0], [2, 1], [2, 1.5], [0, 1], [2, 0.5], [0, 3], [2, 1.8]], dtype=np.float32)
"""Five of six ok are right, one of two frauds; scores z1 - z0 rank the missed fraud above all but one ok."""


def test_recall_and_precision_are_counts_of_each_class():
    found = performance(["ok", "fraud"], Y, Z, sampled=len(Y))
    ok, fraud = found.classes
    assert (ok.recall, ok.precision) == (Count(k=5, n=6), Count(k=5, n=6))
    assert (fraud.recall, fraud.precision) == (Count(k=1, n=2), Count(k=1, n=2))
    assert found.balanced_accuracy == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert found.best_constant == Count(k=6, n=8)
    assert found.never_answered == ()


def test_the_areas_are_about_the_rarer_class():
    found = performance(["ok", "fraud"], Y, Z, sampled=len(Y))
    assert found.positive == "fraud"
    # By definition: of 2 x 6 pairs, 11 are in order; precision at the two frauds' ranks is 1/1 and 2/3.
    assert found.roc_auc == pytest.approx(11 / 12)
    assert found.pr_auc == pytest.approx((1 + 2 / 3) / 2)
    turned = performance(["fraud", "ok"], 1 - Y, Z[:, ::-1], sampled=len(Y))
    assert (turned.positive, turned.roc_auc, turned.pr_auc) == ("fraud", found.roc_auc, found.pr_auc)


def test_more_classes_have_no_areas_and_a_class_that_is_never_answered_is_named():
    y = np.array([0, 1, 2, 2], dtype=np.int64)
    found = performance(["a", "b", "c"], y, np.eye(3, dtype=np.float32)[[0, 1, 0, 1]], sampled=4)
    assert (found.positive, found.roc_auc, found.pr_auc) == (None, None, None)
    assert found.never_answered == ("c",)
    assert found.balanced_accuracy == pytest.approx(2 / 3)


def test_one_class_alone_has_no_areas():
    found = performance(["ok", "fraud"], np.zeros(3, dtype=np.int64), Z[:3], sampled=3)
    assert found.roc_auc is None
    assert found.balanced_accuracy == 1.0


def test_what_depends_on_how_frequent_a_class_is_is_counted_on_the_sample_alone():
    # Two more frauds after the sample, one of them right: recall 2 of 4, precision and the base rate as before.
    y, z = np.array([*Y, 1, 1], dtype=np.int64), np.array([*Z, [0, 2], [3, 0]], dtype=np.float32)
    found, alone = performance(["ok", "fraud"], y, z, sampled=8), performance(["ok", "fraud"], Y, Z, sampled=8)
    assert (found.classes[1].recall, found.classes[1].answers) == (Count(k=2, n=4), 3)
    assert found.classes[1].precision == alone.classes[1].precision
    assert (found.pr_auc, found.best_constant) == (alone.pr_auc, alone.best_constant)
    assert found.roc_auc != alone.roc_auc
