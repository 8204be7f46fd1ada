"""When a report leads to a retraining: not for a broken feed, and not again within the cooldown."""

from calendar import timegm
from time import strptime

from holdfast.artifacts.documents import MonitorReport, RetrainRequest
from holdfast.errors import InputError

_DAY = 24 * 3600


def request(report: MonitorReport, previous: RetrainRequest | None, cooldown_days: int) -> RetrainRequest:
    """The request that this report leads to, without its inputs.

    Raises:
        InputError: the report asks for none, or the one before is younger than its cooldown.
    """
    if report.next == "repair":
        raise InputError(
            f"inputs changed at once at {report.began}: expected a repaired feed before anything is trained on it; "
            "where the step is real, draw labels, and ask again with them"
        )
    if report.next not in ("retrain", "review"):
        raise InputError(f"expected a report with an alarm, found {report.verdict.value} ({report.reason})")
    if previous is not None:
        _require_cool(previous, report.last)
    return RetrainRequest(
        name=report.name,
        model=report.model,
        reason=f"{report.reason}; {report.advice}",
        asked=report.last,
        older_than=report.began or report.first,
        cooldown_days=cooldown_days,
    )


def _require_cool(previous: RetrainRequest, now: str) -> None:
    passed = (_seconds(now) - _seconds(previous.asked)) / _DAY
    if passed < previous.cooldown_days:
        raise InputError(
            f"expected {previous.cooldown_days} days since the request of {previous.asked}, found {passed:.1f}; many "
            "alarms in a short time may be an attack on the training: let a person look"
        )


def _seconds(at: str) -> int:
    return timegm(strptime(at, "%Y-%m-%dT%H:%M:%SZ"))
