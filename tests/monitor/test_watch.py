"""What the pipeline runs: the champion, by its log, from the newest report that was kept."""

import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from holdfast import registry
from holdfast.artifacts.documents import GateDecision, Model, MonitorReport, Verdict
from holdfast.artifacts.folder import load
from holdfast.cli.app import app
from holdfast.errors import InputError
from holdfast.monitor import kept
from holdfast.monitor.step import draw_labels, watch
from holdfast.workload.schema import MonitorConfig, MonitorLabels
from tests.monitor.conftest import write_log


@pytest.fixture
def champion(served, monkeypatch):
    """The registry has this champion; how it is fetched is tested with the registry."""
    found = SimpleNamespace(model=load(served / "model", Model), decision=load(served / "decision", GateDecision))

    @contextmanager
    def fetched(tracking, name, version, demands):
        yield found if name == "loans" and version == "champion" else None

    monkeypatch.setattr(registry, "fetched", fetched)
    return found


def settings(log, folder, **given):
    return MonitorConfig(log=str(log), kept=str(folder / "kept"), alarms=0.3, stable=60, **given)


def run(out, config, name="loans"):
    return watch(out, name=name, tracking="", config=config)


def test_each_run_goes_on_from_the_report_before(champion, quiet_log, tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    for path in sorted(quiet_log.iterdir())[:90]:
        shutil.copy(path, log)
    first = run(tmp_path / "first", settings(log, tmp_path))
    shutil.copytree(quiet_log, log, dirs_exist_ok=True)
    second = run(tmp_path / "second", settings(log, tmp_path))
    assert first.document.name == "loans"
    assert second.document.inputs["previous"] == first.digest
    assert second.document.windows == first.document.windows + 11
    assert len(list((tmp_path / "kept/loans/reports").iterdir())) == 2


def test_a_report_that_was_altered_is_left_out_and_named(champion, quiet_log, tmp_path, capsys):
    config = settings(quiet_log, tmp_path)
    first = run(tmp_path / "first", config)
    (place,) = (tmp_path / "kept/loans/reports").iterdir()
    (place / "windows.npz").write_bytes(b"quiet for ever")
    again = run(tmp_path / "again", config)
    assert "previous" not in again.document.inputs
    assert again.document.stages == first.document.stages
    assert f"{place} is left out" in capsys.readouterr().err


def test_a_report_on_another_model_is_not_gone_on_from(champion, quiet_log, tmp_path):
    config = settings(quiet_log, tmp_path)
    run(tmp_path / "first", config)
    found = kept.newest(tmp_path / "kept/loans", MonitorReport, lambda one: one.model == "0" * 64)
    assert found is None


def test_the_oldest_reports_go(champion, quiet_log, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "MOST", 2)
    made = run(tmp_path / "first", settings(quiet_log, tmp_path))
    folder = tmp_path / "kept/loans"
    for hour in ("2027-01-01T00", "2027-01-01T01", "2027-01-01T02"):
        kept.keep(made, folder, f"{hour}:00:00Z")
    names = sorted(path.name[:13] for path in (folder / "reports").iterdir())
    assert names == ["2027-01-01T01", "2027-01-01T02"]


def test_before_there_is_enough_the_report_is_inconclusive_and_not_kept(champion, served, tmp_path):
    write_log(tmp_path / "log", served, 5)
    found = run(tmp_path / "out", settings(tmp_path / "log", tmp_path)).document
    assert (found.verdict, found.windows, found.next) == (Verdict.INCONCLUSIVE, 0, "record")
    assert not (tmp_path / "kept").exists()


def test_without_a_champion_nothing_is_watched(champion, quiet_log, tmp_path):
    with pytest.raises(InputError, match="others: expected a champion in the registry, found none"):
        run(tmp_path / "out", settings(quiet_log, tmp_path), name="others")


def test_a_section_without_a_log_is_named(champion, tmp_path):
    with pytest.raises(InputError, match="monitor.log: expected the folder of a sample_log"):
        run(tmp_path / "out", MonitorConfig())


# --- labels -----------------------------------------------------------------------------------------------------------


def asked(champion, log, folder, hours, draws=30):
    """A request in the folder of labels, not answered yet."""
    folder.mkdir(exist_ok=True)
    draw_labels(log, kept_ref(champion), folder / "request.json", draws=draws, hours=hours, seed=0)
    return MonitorLabels(source=str(folder), delay_days=7)


def kept_ref(champion):
    from holdfast.artifacts.folder import Ref

    return Ref(champion.model.folder, champion.model.digest)


def test_a_request_is_waited_for_and_then_makes_labels_selected(champion, quiet_log, tmp_path):
    labels = asked(champion, quiet_log, tmp_path / "labels", 3)
    (tmp_path / "labels" / "some.csv").write_text("request,label\nh50-1,no\n")
    young = run(tmp_path / "young", settings(quiet_log, tmp_path, labels=labels)).document
    assert (young.selected, young.loss) == (False, None)
    now = labels.model_copy(update={"delay_days": 0})
    assert run(tmp_path / "old", settings(quiet_log, tmp_path, labels=now)).document.selected


# --- the command ------------------------------------------------------------------------------------------------------


def call(tmp_path, config):
    words = ["monitor", "run", "--name", "loans", "--tracking", "", "--config", config.model_dump_json()]
    words += ["--out", str(tmp_path / "out"), "--asks-file", str(tmp_path / "asks")]
    words += ["--verdict-file", str(tmp_path / "verdict"), "--page-file", str(tmp_path / "page.html")]
    assert CliRunner().invoke(app, words).exit_code == 0
    return (tmp_path / "verdict").read_text(), (tmp_path / "asks").read_text()


def test_the_command_asks_for_nothing_where_nothing_changed(champion, quiet_log, tmp_path):
    config = settings(quiet_log, tmp_path, on_drift=("report", "retrain"))
    assert call(tmp_path, config) == ("pass", "no")
    assert "Evidence of inputs" in (tmp_path / "page.html").read_text()


def test_the_command_asks_for_no_retraining_after_a_broken_feed(champion, served, quiet_log, tmp_path):
    shutil.copytree(quiet_log, tmp_path / "log")
    write_log(tmp_path / "log", served, 12, start=101, shift=1.0)
    config = settings(tmp_path / "log", tmp_path, on_drift=("report", "retrain"))
    assert call(tmp_path, config) == ("fail", "no")
