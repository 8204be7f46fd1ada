"""What leads to a retraining, and what must not."""

import pytest

from holdfast.artifacts.documents import MonitorReport, RetrainRequest, Verdict
from holdfast.artifacts.folder import Ref, save
from holdfast.errors import InputError
from holdfast.monitor.step import ask_retraining


def report(folder, next_, *, last="2026-03-10T00:00:00Z", began=None):
    document = MonitorReport(
        model="a" * 64, first="2026-01-01T00:00:00Z", last=last, windows=100, stages=(), columns=(), change="none",
        began=began, loss=None, selected=False, next=next_, advice="do it", reason="labels: evidence above the limit",
        verdict=Verdict.FAIL,
    )  # fmt: skip
    return save(folder, document)


def ask(made, out, previous=None):
    return ask_retraining(Ref(made.folder), out, previous=previous, cooldown_days=7)


def test_a_proven_loss_leads_to_a_request_that_names_its_report(tmp_path):
    made = report(tmp_path / "report", "retrain", began="2026-03-08T00:00:00Z")
    found = ask(made, tmp_path / "request").document
    assert found.inputs == {"report": made.digest}
    assert (found.asked, found.older_than) == ("2026-03-10T00:00:00Z", "2026-03-08T00:00:00Z")


def test_a_broken_feed_is_not_trained_on(tmp_path):
    made = report(tmp_path / "report", "repair", began="2026-03-08T00:00:00Z")
    with pytest.raises(InputError, match="expected a repaired feed before anything is trained"):
        ask(made, tmp_path / "request")
    assert not (tmp_path / "request").exists()


def test_a_quiet_report_leads_to_none(tmp_path):
    with pytest.raises(InputError, match="expected a report with an alarm"):
        ask(report(tmp_path / "report", "none"), tmp_path / "request")


def test_alarms_in_a_row_meet_the_cooldown(tmp_path):
    first = ask(report(tmp_path / "1", "retrain"), tmp_path / "first")
    soon = report(tmp_path / "2", "retrain", last="2026-03-16T23:00:00Z")
    with pytest.raises(
        InputError, match="expected 7 days since the request of 2026-03-10T00:00:00Z, found (7.0|6.9|7)"
    ):
        ask(soon, tmp_path / "second", Ref(first.folder))
    later = report(tmp_path / "3", "retrain", last="2026-03-17T00:00:00Z")
    second = ask(later, tmp_path / "second", Ref(first.folder))
    assert isinstance(second.document, RetrainRequest)
    assert second.document.inputs["previous"] == first.digest
