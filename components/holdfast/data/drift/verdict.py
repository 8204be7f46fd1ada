"""What the two stages mean together.

An input shift alone is no reason to stop: most are harmless. A delivery is broken when most of its columns moved, or
when several columns (or the labels) moved and the champion, too, became less sure.
"""

from collections.abc import Sequence

from holdfast.artifacts.documents import ColumnDrift, ConfidenceDrift, Count, Verdict

MIN_COLUMNS = 2
"""Drifted columns that make stage one an alarm; the label's drift is one by itself."""
_NAMED = 3


def judge(
    columns: Sequence[ColumnDrift], confidence: ConfidenceDrift | None, *, label: str, break_share: float
) -> tuple[Verdict, str]:
    """The verdict and one sentence with the reason, naming the columns that moved most."""
    drifted = [column for column in columns if column.drifted]
    share = Count(k=len(drifted), n=len(columns)).share
    told = f"{len(drifted)} of {len(columns)} columns drifted{_worst(drifted)}"
    if drifted and share >= break_share:
        return Verdict.FAIL, f"{told}: at least the share of {break_share:g} that is a broken delivery"
    alarm = len(drifted) >= MIN_COLUMNS or any(column.column == label for column in drifted)
    if confidence is not None and alarm and confidence.drifted:
        fell = f"from {confidence.reference_mean:.2f} to {confidence.current_mean:.2f}"
        return Verdict.FAIL, f"{told}, and the champion's mean confidence fell {fell}"
    return Verdict.PASS, f"{told}{_quiet(confidence, any_drift=bool(drifted))}"


def _worst(drifted: Sequence[ColumnDrift]) -> str:
    if not drifted:
        return ""
    worst = sorted(drifted, key=lambda column: -column.effect)[:_NAMED]
    more = ", …" if len(drifted) > _NAMED else ""
    return f" ({', '.join(f'{column.column}: effect {column.effect:.2f}' for column in worst)}{more})"


def _quiet(confidence: ConfidenceDrift | None, *, any_drift: bool) -> str:
    if confidence is None:
        return "; there is no champion yet to ask"
    if not confidence.drifted:
        return "; the champion is as sure as on its own held-out rows"
    return "; the champion is less sure" + (", but fewer than two columns moved" if any_drift else "")
