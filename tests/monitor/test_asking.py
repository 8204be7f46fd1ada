"""What leads to a retraining, and what must not."""

import pytest

from holdfast.artifacts.documents import MonitorReport, RetrainRequest, Verdict
from holdfast.artifacts.folder import Ref, save
from holdfast.errors import InputError
from holdfast.monitor.request.step import asks, request


def report(folder, next_, *, last="2026-03-10T00:00:00Z", began=None):
    document = MonitorReport(
        name="loans", model="a" * 64, first="2026-01-01T00:00:00Z", last=last, windows=100, stages=(), columns=(),
        change="none", began=began, loss=None, selected=False, next=next_, advice="do it",
        reason="labels: evidence above the limit", verdict=Verdict.FAIL,
    )  # fmt: skip
    return save(folder, document)


def ask(made, out, previous=None):
    return request(Ref(made.folder), out, previous=previous, cooldown_days=7)


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


def test_the_request_before_is_found_in_what_is_kept(tmp_path):
    kept = tmp_path / "kept"
    first = request(Ref(report(tmp_path / "1", "retrain").folder), tmp_path / "a", cooldown_days=7, kept=kept)
    soon = report(tmp_path / "2", "retrain", last="2026-03-12T00:00:00Z")
    assert not asks(soon, kept, 7)
    with pytest.raises(InputError, match="expected 7 days since the request of 2026-03-10T00:00:00Z"):
        request(Ref(soon.folder), tmp_path / "b", cooldown_days=7, kept=kept)
    later = report(tmp_path / "3", "review", last="2026-03-18T00:00:00Z")
    assert asks(later, kept, 7)
    second = request(Ref(later.folder), tmp_path / "c", cooldown_days=7, kept=kept)
    assert second.document.inputs["previous"] == first.digest


def test_no_retraining_is_asked_for_where_a_feed_broke(tmp_path):
    assert not asks(report(tmp_path / "1", "repair"), tmp_path / "kept", 7)
