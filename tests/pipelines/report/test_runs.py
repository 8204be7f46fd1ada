"""The runs of a workload, one against the other."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from holdfast.artifacts.documents import AnswerTimes, Model, Registration
from holdfast.artifacts.folder import load, save
from holdfast_pipelines.report import write_report
from holdfast_pipelines.report.evidence import read_run
from holdfast_pipelines.report.history import HISTORY, remember, runs_of_workload

ALONE = "This is the only measured run of this workload"


def section(run: Path) -> str:
    page = write_report(run, run / "report.html").read_text()
    return page[page.index("<h3>Runs of this workload</h3>") : page.index("<h3>Chain of evidence</h3>")]


def with_another_model(run: Path, *, seed: int, milliseconds: float | None = None) -> Path:
    """Replaces the model and its registration, as a run with another seed does."""
    record = json.loads((run / "run.json").read_text())
    steps = {step["step"]: step for step in record["steps"]}
    model = load(run / "steps/train", Model)
    files = {name: model.open(name).read() for name in model.document.files}
    other = model.document.model_copy(update={"seed": seed, "files": {}})
    steps["train"]["digest"] = save(run / "steps/train", other, files).digest
    times = milliseconds and AnswerTimes(single_row_ms=milliseconds, batch_ms=9 * milliseconds, batch_rows=256)
    registered = load(run / "steps/register", Registration).document.model_copy(update={"latency": times or None})
    steps["register"]["digest"] = save(run / "steps/register", registered).digest
    (run / "run.json").write_text(json.dumps({**record, "seed": seed}))
    return run


@pytest.fixture
def run(maker: Any) -> Path:
    made: Path = maker("clean").complete()
    return made


def test_one_run_is_a_sentence_and_no_plot(run: Path) -> None:
    remember(run, 1000.0)
    assert ALONE in section(run)
    assert "<svg" not in section(run)


def test_a_second_model_makes_a_plot_with_a_point_for_each(run: Path) -> None:
    remember(with_another_model(run, seed=1, milliseconds=0.5), 1000.0)
    remember(with_another_model(run, seed=2, milliseconds=2.0), 2000.0)
    shown = section(run)
    assert ALONE not in shown
    assert re.findall(r"<svg.*?<title>(.*?)</title>", shown) == [
        "Accuracy against robustness",
        "Latency against robustness",
    ]
    # 36 of 36 in nine classes and 25 of 36 in one: the mean of the recalls is 0.9694.
    assert shown.count("run 1: 96.9 %") == shown.count("run 2: 96.9 %") > 0
    assert "1970-01-01 00:16:40Z" in shown
    assert "0.5 ms" in shown
    assert "18 ms for 256" in shown


def test_the_same_model_again_is_one_run_that_keeps_its_latency(run: Path) -> None:
    remember(with_another_model(run, seed=1, milliseconds=0.5), 1000.0)
    registered = load(run / "steps/register", Registration).document.model_copy(update={"latency": None})
    record = json.loads((run / "run.json").read_text())
    for step in record["steps"]:
        if step["step"] == "register":
            step["digest"] = save(run / "steps/register", registered).digest
    (run / "run.json").write_text(json.dumps(record))
    remember(run, 2000.0)
    (only,) = runs_of_workload(read_run(run))
    assert only.latency == AnswerTimes(single_row_ms=0.5, batch_ms=4.5, batch_rows=256)


def test_runs_in_folders_next_to_it_count_and_those_of_another_workload_do_not(run: Path, maker: Any) -> None:
    other = maker("other")
    other.workload = "letters"
    remember(other.complete(), 500.0)
    next_to_it = shutil.copytree(run, run.parent / "second")
    remember(with_another_model(next_to_it, seed=3), 1500.0)
    remember(run, 1000.0)
    assert [one.seed for one in runs_of_workload(read_run(run))] == [3, 0]


def test_a_run_under_other_attacks_is_not_compared(run: Path) -> None:
    remember(with_another_model(run, seed=1), 1000.0)
    line = json.loads((run / HISTORY).read_text())
    (run / HISTORY).write_text(json.dumps({**line, "threat": line["threat"].replace("tier pr", "tier release")}) + "\n")
    remember(with_another_model(run, seed=2), 2000.0)
    assert [one.seed for one in runs_of_workload(read_run(run))] == [2]
    assert len((run / HISTORY).read_text().splitlines()) == 2


def test_a_damaged_line_is_named_and_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / HISTORY).write_text('{"half\n')
    remember(run, 1000.0)
    assert f"{HISTORY}:1: expected a measured run, found" in capsys.readouterr().err
    assert len((run / HISTORY).read_text().splitlines()) == 1


def test_a_run_that_ended_before_its_model_was_attacked_is_not_kept(maker: Any) -> None:
    made = maker("clean")
    made.snapshot()
    stopped = made.finish("stopped", stopped_at="drift")
    remember(stopped, 1000.0)
    assert not (stopped / HISTORY).exists()
    assert "Runs of this workload" not in write_report(stopped, stopped / "report.html").read_text()
