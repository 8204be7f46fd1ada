"""From the log of a model server to the report: what is planted is found, a quiet month is quiet."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from holdfast.artifacts.documents import (
    GateDecision,
    Model,
    MonitorReport,
    Verdict,
)  # fmt: skip
from holdfast.artifacts.folder import Ref, load, save
from holdfast.cli.app import app
from holdfast.errors import ArtifactError, InputError
from holdfast.monitor.step import LabelAnswers, draw_labels, monitor
from holdfast.monitor.watching import MonitorSettings
from tests.monitor.conftest import write_log

SETTINGS = MonitorSettings(alarms=0.3, stable=60)
LEARNED = 10
"""Hours of 200 rows that give the bins."""


def check(log, out, served, **given):
    given = {"settings": SETTINGS, **given}
    return monitor(log, out, model=Ref(served / "model"), decision=Ref(served / "decision"), **given)


def test_a_quiet_log_raises_no_alarm(served, quiet_log, tmp_path):
    found = check(quiet_log, tmp_path / "report", served).document
    assert (found.verdict, found.change, found.began, found.next) == (Verdict.PASS, "none", None, "none")
    assert found.windows == 100 - LEARNED  # the newest hour may still be written
    assert (found.first, found.last) == ("1970-01-01T10:00:00Z", "1970-01-05T03:00:00Z")
    assert [stage.alarm for stage in found.stages] == [False] * 3


def test_a_column_that_moves_at_once_is_named_and_dated(served, tmp_path):
    write_log(tmp_path / "log", served, 101)
    write_log(tmp_path / "log", served, 12, start=101, shift=1.0)
    artifact = check(tmp_path / "log", tmp_path / "report", served)
    found = artifact.document
    assert found.verdict is Verdict.FAIL
    assert (found.change, found.next) == ("sudden", "repair")
    assert found.began == "1970-01-05T11:00:00Z"  # hour 107
    assert found.columns[0].column == "x.income"
    # Half a bin's move: two normals one standard deviation apart differ in 38 % of their mass.
    assert found.columns[0].moved == pytest.approx(0.38, abs=0.06)
    assert b"Evidence of inputs" in artifact.open("report.html").read()


def test_a_report_goes_on_from_the_one_before(served, quiet_log, tmp_path):
    whole = check(quiet_log, tmp_path / "whole", served)
    part = tmp_path / "part"
    part.mkdir()
    for path in sorted(quiet_log.iterdir())[:71]:
        (part / path.name).write_bytes(path.read_bytes())
    first = check(part, tmp_path / "first", served)
    for path in sorted(quiet_log.iterdir())[71:]:
        (part / path.name).write_bytes(path.read_bytes())
    (part / sorted(quiet_log.iterdir())[0].name).unlink()  # rolled out of the log; the state has it
    second = check(part, tmp_path / "second", served, previous=Ref(tmp_path / "first"))
    assert second.document.inputs["previous"] == first.digest
    assert second.document.stages == whole.document.stages


def test_too_few_hours_are_inconclusive(served, tmp_path):
    write_log(tmp_path / "log", served, 30)
    found = check(tmp_path / "log", tmp_path / "report", served).document
    assert (found.verdict, found.next) == (Verdict.INCONCLUSIVE, "record")


def test_a_log_of_another_model_is_not_watched(served, tmp_path):
    write_log(tmp_path / "log", served, 5)
    other = load(served / "model", Model).document.model_copy(update={"seed": 1, "files": {}})
    model = save(tmp_path / "model", other, {"weights.safetensors": b"none"})
    decision = load(served / "decision", GateDecision).document
    save(tmp_path / "decision", decision.model_copy(update={"inputs": {"model": model.digest}}))
    with pytest.raises(InputError, match="expected complete hours of this model"):
        check(tmp_path / "log", tmp_path / "report", tmp_path)


def test_another_models_decision_is_refused(served, quiet_log, tmp_path):
    decision = load(served / "decision", GateDecision).document
    save(tmp_path / "decision", decision.model_copy(update={"inputs": {"model": "a" * 64}}))
    with pytest.raises(ArtifactError, match="expected a decision on model"):
        monitor(
            quiet_log, tmp_path / "report", model=Ref(served / "model"), decision=Ref(tmp_path / "decision"),
            settings=SETTINGS,
        )  # fmt: skip


def test_a_file_that_is_no_log_is_named(served, tmp_path):
    write_log(tmp_path / "log", served, 3)
    (tmp_path / "log" / "1970-01-01T00-x.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="1970-01-01T00-x.parquet: expected a file of a sample_log"):
        check(tmp_path / "log", tmp_path / "report", served)


# --- labels ---------------------------------------------------------------------------------------------------------


def answer(request, out, wrong):
    """A CSV of labels for a request, of which a share is not what the model answered."""
    rows = {row["request"]: row["answer"] for row in json.loads(request.read_text())["draws"]}
    rng = np.random.default_rng(0)
    with out.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["request", "row", "label"])
        for name, given in rows.items():
            other = {"no": "yes", "yes": "no"}[given]
            writer.writerow([*name.split("#"), other if rng.random() < wrong else given])
    return out


def drawn(served, log, folder, wrong, draws=400):
    request = folder / "request.json"
    draw_labels(log, Ref(served / "model"), request, draws=draws, hours=48, seed=0)
    return LabelAnswers((answer(request, folder / "labels.csv", wrong),), (request,))


def test_a_model_that_errs_more_than_was_approved_is_found_by_drawn_labels(served, quiet_log, tmp_path):
    found = check(quiet_log, tmp_path / "report", served, labels=drawn(served, quiet_log, tmp_path, 0.25)).document
    assert (found.verdict, found.next, found.selected) == (Verdict.FAIL, "retrain", False)
    assert found.stages[2].alarm
    assert found.loss.n == 400


def test_a_model_as_good_as_approved_is_not_accused(served, quiet_log, tmp_path):
    found = check(quiet_log, tmp_path / "report", served, labels=drawn(served, quiet_log, tmp_path, 0.02)).document
    assert (found.verdict, found.stages[2].alarm) == (Verdict.PASS, False)


def test_labels_that_were_not_asked_for_are_called_selected_and_raise_no_alarm(served, quiet_log, tmp_path):
    labels = drawn(served, quiet_log, tmp_path, 0.9)
    found = check(quiet_log, tmp_path / "report", served, labels=LabelAnswers(labels.files)).document
    assert (found.verdict, found.selected) == (Verdict.PASS, True)
    assert found.stages[2].evidence > found.stages[2].limit
    assert "selected" in found.stages[2].reason


def test_a_request_with_answers_missing_is_selected_too(served, quiet_log, tmp_path):
    labels = drawn(served, quiet_log, tmp_path, 0.9)
    lines = labels.files[0].read_text().splitlines()
    labels.files[0].write_text("\n".join(lines[:-5]))
    assert check(quiet_log, tmp_path / "report", served, labels=labels).document.selected


def test_a_label_that_is_no_class_is_refused(served, quiet_log, tmp_path):
    (tmp_path / "labels.csv").write_text("request,label\nh50-1,maybe\n")
    with pytest.raises(InputError, match="expected labels among no, yes, found 'maybe'"):
        check(quiet_log, tmp_path / "report", served, labels=LabelAnswers((tmp_path / "labels.csv",)))


def test_the_command_ends_with_the_codes_of_the_gate(served, quiet_log, tmp_path):
    words = ["monitor", "check", "--log", str(quiet_log), "--model", str(served / "model"), "--enforce"]
    words += ["--decision", str(served / "decision"), "--out", str(tmp_path / "report")]
    assert CliRunner().invoke(app, [*words, "--stable", "60"]).exit_code == 0
    assert CliRunner().invoke(app, [*words, "--stable", "168"]).exit_code == 4
    assert load(tmp_path / "report", MonitorReport).document.verdict is Verdict.INCONCLUSIVE
