"""A delivery with wrong held-out labels gets that sentence, and no advice to evaluate more examples."""

import pytest

from holdfast.artifacts.documents import Count, HeldOutLabels, Verdict
from holdfast_gates.decide import Evidence, decide
from holdfast_gates.policy import find
from holdfast_gates.report import to_markdown

SENTENCE = "the held-out labels of 41 of 200 rows look wrong: check them first"


def suspected(k: int) -> HeldOutLabels:
    return HeldOutLabels(suspects=Count(k=k, n=200), rows=tuple(range(k)), false_alarm_rate=0.01)


def decided(judged, evidence, make, k, **changes):
    evidence = evidence | {
        "scan": Evidence(make["scan"](held_out=suspected(k), **changes), evidence["scan"].digest),
        "attack": Evidence(make["attack"](clean=Count(k=820, n=1000), worst_case=Count(k=515, n=1000)), "f" * 64),
    }
    return decide(find("default"), judged, evidence)


def reasons(decision) -> dict[str, str]:
    return {check.name: check.reason for check in decision.checks if check.verdict is not Verdict.PASS}


def test_checks_that_fail_on_suspected_labels_name_the_labels_first(judged, evidence, make):
    found = reasons(decided(judged, evidence, make, 41))
    assert found["clean_accuracy"] == SENTENCE
    assert found["robust_accuracy"].startswith(f"{SENTENCE}; the interval contains the threshold")


def test_what_to_do_next_is_to_look_at_the_labels(judged, evidence, make):
    page, _, _ = to_markdown(decided(judged, evidence, make, 41), find("default")).partition("## How it was measured")
    assert "- clean_accuracy: Look at the rows of the scan's `held_out.csv`" in page
    assert "attack.examples" not in page


def test_labels_that_look_right_are_not_named(judged, evidence, make):
    decision = decided(judged, evidence, make, 0)
    assert not any("held-out labels" in reason for reason in reasons(decision).values())
    assert "`attack.examples`" in to_markdown(decision, find("default"))


def test_a_check_that_passes_keeps_its_words(judged, evidence, make):
    decision = decided(judged, evidence, make, 41)
    assert not [check for check in decision.checks if check.verdict is Verdict.PASS and "look wrong" in check.reason]


@pytest.mark.parametrize("check", ["poison", "gradient_masking"])
def test_a_check_that_counts_no_answers_is_not_explained_by_labels(check, judged, evidence, make):
    assert "look wrong" not in reasons(decided(judged, evidence, make, 41, verdict=Verdict.FAIL)).get(check, "")


def test_a_scan_of_another_snapshot_explains_nothing(judged, evidence, make):
    decision = decided(judged, evidence, make, 41, inputs={"snapshot": "9" * 64})
    assert reasons(decision)["clean_accuracy"] == ""
