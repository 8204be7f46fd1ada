"""The checks of single classes: what accuracy hides where one class is rare."""

import math

import pytest

from holdfast.artifacts.documents import (
    CertifiedAt,
    ClassPaired,
    ClassResult,
    Count,
    Paired,
    Performance,
    Verdict,
)
from holdfast_gates.champion import champion_class_recall
from holdfast_gates.checks import certified_accuracy, clean_accuracy, robust_accuracy
from holdfast_gates.classes import (
    better_than_constant,
    certified_class_recall,
    class_recall,
    robust_class_recall,
)
from holdfast_gates.decide import Evidence, decide
from holdfast_gates.policy import AtLeast, AtRadius, CheckConfig, Margin
from holdfast_gates.report import what_to_do

ALPHA = 0.05


def rare(caught: int, frauds: int = 14, false_alarms: int = 0, others: int = 346) -> Performance:
    """Of `others` ok rows and a few frauds, of which some are caught."""
    right, alarms = others - false_alarms, caught + false_alarms
    told = right + frauds - caught
    return Performance(
        classes=(
            ClassResult(name="ok", recall=Count(k=right, n=others), answers=told, precision=Count(k=right, n=told)),
            ClassResult(
                name="fraud", recall=Count(k=caught, n=frauds), answers=alarms, precision=Count(k=caught, n=alarms)
            ),
        ),
        best_constant=Count(k=max(others, frauds), n=others + frauds),
    )


@pytest.fixture
def report(make):
    def made(clean: Performance, attacked: Performance | None = None):
        return make["attack"](clean_performance=clean, worst_case_performance=attacked or clean)

    return made


def test_a_network_that_never_answers_the_rare_class_fails_and_the_reason_names_it(report):
    check = better_than_constant(report(rare(0)), CheckConfig(), ALPHA)
    assert check.verdict is Verdict.FAIL
    assert check.measured == 0.5
    assert check.reason == (
        "never answers 'fraud' (0 of 14); 0.961 of the examples are of one class, so accuracy alone cannot show it"
    )


def test_catching_frauds_only_until_somebody_attacks_is_not_better_than_a_constant(report):
    check = better_than_constant(report(rare(12), rare(0)), CheckConfig(), ALPHA)
    assert check.verdict is Verdict.FAIL
    assert "under attack 0.500 (p = 1)" in check.reason


def test_a_useful_detector_of_a_rare_class_is_better_than_a_constant(report):
    check = better_than_constant(report(rare(11, false_alarms=5), rare(6, false_alarms=20)), CheckConfig(), ALPHA)
    assert check.verdict is Verdict.PASS


def test_one_lucky_fraud_proves_nothing(report):
    # One fraud and one false alarm: by Fisher's exact test 14/360 + 346 * ... = 1 - C(346, 2) / C(360, 2).
    check = better_than_constant(report(rare(1, false_alarms=1)), CheckConfig(), ALPHA)
    assert check.verdict is Verdict.INCONCLUSIVE
    assert f"p = {1 - math.comb(346, 2) / math.comb(360, 2):.2g}" in check.reason


def test_answers_worse_than_a_constant_fail(report):
    assert better_than_constant(report(rare(0, false_alarms=30)), CheckConfig(), ALPHA).verdict is Verdict.FAIL


def test_every_class_is_held_to_its_own_bound(report):
    # Clopper-Pearson, one-sided 95 %: 11 of 14 is at least 0.534, 6 of 14 at least 0.206; scipy.stats.binomtest.
    enough = class_recall(report(rare(11)), AtLeast(at_least=0.5), ALPHA)
    few = class_recall(report(rare(6)), AtLeast(at_least=0.5), ALPHA)
    none = class_recall(report(rare(0)), AtLeast(at_least=0.5), ALPHA)
    assert [check.verdict for check in (enough, few, none)] == [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]
    assert enough.lower == pytest.approx(0.534, abs=1e-3)
    assert few.lower == pytest.approx(0.206, abs=1e-3)
    assert few.reason == "'fraud': 6 of 14, too few examples of this class to decide"
    assert none.reason == "'fraud': 0 of 14"


@pytest.mark.parametrize(("caught", "verdict"), [(0, Verdict.INCONCLUSIVE), (1, Verdict.PASS)])
def test_accuracy_is_no_pass_where_all_that_is_right_is_of_one_class(make, caught, verdict):
    counts = {"clean_performance": rare(caught), "worst_case_performance": rare(caught)}
    report = make["attack"](clean=Count(k=486, n=500), worst_case=Count(k=486, n=500), **counts)
    by_class = {"ok": Count(k=486, n=486), "fraud": Count(k=caught, n=14)}
    certified = CertifiedAt(radius=0.25, certified=Count(k=486, n=500), classes=by_class)
    found = [
        clean_accuracy(report, AtLeast(at_least=0.9), ALPHA),
        robust_accuracy(report, AtLeast(at_least=0.5), ALPHA),
        certified_accuracy(make["certify"](certified=(certified,)), AtRadius(radius=0.1, at_least=0.3), ALPHA),
    ]
    assert [check.verdict for check in found] == [verdict] * 3
    if caught == 0:
        for check in found:
            assert check.reason.startswith("only one class is right, 'ok', never 'fraud' (0 of 14)")
            assert "train.class_weights" in what_to_do(check.named("clean_accuracy"))


def test_an_accuracy_that_fails_is_not_called_undecided_for_its_classes(make):
    report = make["attack"](clean=Count(k=486, n=500), clean_performance=rare(0))
    assert clean_accuracy(report, AtLeast(at_least=0.999), ALPHA).verdict is Verdict.FAIL


def test_a_class_without_examples_is_not_a_pass(report):
    check = class_recall(report(rare(0, frauds=0)), AtLeast(at_least=0.5), ALPHA)
    assert check.verdict is Verdict.INCONCLUSIVE
    assert "'fraud': 0 of 0" in check.reason


def test_examples_of_one_class_alone_prove_nothing(report):
    check = better_than_constant(report(rare(0, frauds=0)), CheckConfig(), ALPHA)
    assert check.verdict is Verdict.INCONCLUSIVE
    assert "the examples are of one class" in check.reason


def test_a_class_without_examples_does_not_lower_what_a_constant_answer_reaches(report):
    # Of three classes the data has two: answers that know nothing reach 1 / 2, not 1 / 3.
    guess = Performance(
        classes=(
            ClassResult(name="a", recall=Count(k=45, n=100), answers=90, precision=Count(k=45, n=90)),
            ClassResult(name="b", recall=Count(k=45, n=100), answers=90, precision=Count(k=45, n=90)),
            ClassResult(name="c", recall=Count(k=0, n=0), answers=20, precision=Count(k=0, n=20)),
        ),
        best_constant=Count(k=100, n=200),
    )
    check = better_than_constant(report(guess), CheckConfig(), ALPHA)
    assert check.verdict is Verdict.FAIL
    assert "above 0.500" in check.required


def test_under_attack_the_counts_of_the_attacked_examples_are_held_to_the_threshold(report):
    check = robust_class_recall(report(rare(14), rare(1)), AtLeast(at_least=0.3), ALPHA)
    assert check.verdict is Verdict.INCONCLUSIVE
    assert (check.count.k, check.count.n) == (1, 14)


def test_a_certificate_is_read_by_class_at_the_smallest_radius_that_is_large_enough(make):
    points = tuple(
        CertifiedAt(
            radius=r, certified=Count(k=k + 90, n=114), classes={"ok": Count(k=90, n=100), "fraud": Count(k=k, n=14)}
        )
        for r, k in ((0.0, 14), (0.25, 9), (0.5, 0))
    )
    asked = AtRadius(radius=0.1, at_least=0.1)
    assert certified_class_recall(make["certify"](certified=points[:2]), asked, ALPHA).verdict is Verdict.PASS
    fails = certified_class_recall(make["certify"](certified=points[2:]), AtRadius(radius=0.1, at_least=0.3), ALPHA)
    assert fails.verdict is Verdict.FAIL
    assert fails.reason == "'fraud': 0 of 14"
    assert fails.required == "at least 0.300 of every class at radius 0.1 input units [0, 1]"


def test_losing_one_class_to_the_champion_fails_though_accuracy_hides_it(make):
    same = Paired(both=340, only_candidate=3, only_champion=3, neither=0)
    lost = Paired(both=2, only_candidate=0, only_champion=10, neither=2)
    classes = (
        ClassPaired(name="ok", clean=same, worst_case=same),
        ClassPaired(name="fraud", clean=lost, worst_case=lost),
    )
    check = champion_class_recall(make["attack"](champion_classes=classes), Margin(margin=0.05), ALPHA)
    assert check.verdict is Verdict.FAIL
    assert check.reason == "'fraud' clean: 2 of 14, the champion 12; 'fraud' under attack: 2 of 14, the champion 12"


def test_equal_models_are_not_called_worse_in_a_class_more_often_than_alpha(make):
    # 40 drawn comparisons of equal models, 5 classes of 30 examples each: at most a few at 5 %.
    import numpy as np

    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(40):
        classes = []
        for name in "abcde":
            b, c = rng.multinomial(30, [0.6, 0.15, 0.15, 0.1])[1:3]
            pairs = Paired(both=30 - b - c, only_candidate=b, only_champion=c, neither=0)
            classes.append(ClassPaired(name=name, clean=pairs, worst_case=pairs))
        check = champion_class_recall(make["attack"](champion_classes=tuple(classes)), Margin(margin=0.0), ALPHA)
        alarms += check.verdict is Verdict.FAIL
    assert alarms <= 4


@pytest.mark.parametrize("asked", ["better_than_constant", "class_recall", "robust_class_recall"])
def test_a_report_without_counts_by_class_is_not_a_pass(policy, judged, evidence, make, asked):
    old = make["attack"](clean_performance=None, worst_case_performance=None)
    decision = decide(policy, judged, {**evidence, "attack": Evidence(old, evidence["attack"].digest)})
    check = next(line for line in decision.checks if line.name == asked)
    assert check.verdict is Verdict.INCONCLUSIVE
    assert "no evidence" in check.reason
