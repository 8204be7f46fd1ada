"""What to do first where a check did not pass on held-out rows whose labels look wrong: look at the labels.

A model that answers rightly counts as wrong there, and neither more examples nor another model helps.
"""

from holdfast.artifacts.documents import Check, CheckResult, ScanReport, Verdict

COUNT_RIGHT_ANSWERS = frozenset(
    {
        "clean_accuracy",
        "robust_accuracy",
        "better_than_constant",
        "class_recall",
        "robust_class_recall",
        "certified_accuracy",
        "certified_class_recall",
    }
)
"""The checks that compare a model's answers with the labels of held-out rows."""
ADVICE = "Look at the rows of the scan's `held_out.csv`, correct the labels at their source, and run again."
_BEGINNING = "the held-out labels of "


def labels_first(check: str, result: CheckResult, scan: ScanReport | None) -> CheckResult:
    """The result, whose reason names the suspected held-out labels first, where it is no pass and there are some."""
    suspects = scan.held_out.suspects if scan is not None and scan.held_out is not None else None
    measured = result.verdict is not Verdict.PASS and result.measured is not None
    if suspects is None or not suspects.k or not measured or check not in COUNT_RIGHT_ANSWERS:
        return result
    first = f"{_BEGINNING}{suspects.k} of {suspects.n} rows look wrong: check them first"
    return result.model_copy(update={"reason": f"{first}; {result.reason}" if result.reason else first})


def questions_labels(check: Check) -> bool:
    """Whether the check's reason begins with suspected held-out labels."""
    return check.reason.startswith(_BEGINNING)


def first_sentence(check: Check) -> str:
    """The part of the reason about the held-out labels, where `questions_labels` is true."""
    return check.reason.partition(";")[0]
