import pytest

from holdfast.artifacts.documents import ColumnDrift, ConfidenceDrift, Verdict
from holdfast.data.drift.verdict import judge


def columns(*drifted: str, of: int = 10) -> list[ColumnDrift]:
    names = [*drifted, *(f"c{i}" for i in range(of - len(drifted)))]
    return [
        ColumnDrift(column=n, test="t", statistic=0, threshold=0.01, effect=(n in drifted) * 0.5, drifted=n in drifted)
        for n in names
    ]


def confidence(drifted: bool) -> ConfidenceDrift:
    means = (0.9, 0.7 if drifted else 0.9)
    return ConfidenceDrift(
        test="t", statistic=0, threshold=0.01, reference_mean=means[0], current_mean=means[1], drifted=drifted
    )


@pytest.mark.parametrize(
    ("found", "stage_two", "verdict"),
    [
        (columns(), None, "pass"),
        (columns(), confidence(True), "pass"),
        (columns("a"), confidence(True), "pass"),
        (columns("a", "b"), None, "pass"),
        (columns("a", "b"), confidence(False), "pass"),
        (columns("a", "b"), confidence(True), "fail"),
        (columns("label"), confidence(False), "pass"),
        (columns("label"), confidence(True), "fail"),
        (columns("a", "b", "c", "d", "e"), None, "fail"),
        (columns("a", "b", "c", "d", "e"), confidence(False), "fail"),
        (columns("a", "b", "c", "d"), confidence(False), "pass"),
    ],
)
def test_both_stages_or_most_columns_break_a_delivery(
    found: list[ColumnDrift], stage_two: ConfidenceDrift | None, verdict: str
) -> None:
    decided, reason = judge(found, stage_two, label="label", break_share=0.5)
    assert decided is Verdict(verdict)
    assert "\n" not in reason


def test_the_reason_names_the_columns_that_moved_most() -> None:
    found = [c.model_copy(update={"effect": float(i)}) for i, c in enumerate(columns("a", "b", "c", "d", of=5))]
    reason = judge(found, None, label="label", break_share=0.5)[1]
    assert reason.startswith("4 of 5 columns drifted (d: effect 3.00, c: effect 2.00, b: effect 1.00, …)")
