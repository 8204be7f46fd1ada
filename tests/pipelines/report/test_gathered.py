"""The page of artifacts that lie apart, as in a pod, is that of the run folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast.artifacts.folder import Ref
from holdfast.cli import app
from holdfast.errors import ArtifactError, IntegrityError
from holdfast_pipelines.report import write_report
from holdfast_pipelines.report.gathered import write_gathered


def apart(run: Path, place: Path, leaving: tuple[str, ...] = ("rollout",)) -> list[Ref]:
    """The artifacts of a run under the names that KFP gives them, and the digests that its tasks hand on."""
    steps = json.loads((run / "run.json").read_text())["steps"]
    found = []
    for number, step in enumerate(step for step in steps if step["step"] not in leaving):
        folder = place / str(number) / "artifact"
        shutil.copytree(run / step["folder"], folder)
        found.append(Ref(folder, step["digest"]))
    return found


def as_in_a_folder(run: Path, outcome: str, **more: Any) -> str:
    """The page of the run folder without what a pod does not know: times, what was reused, the rollout."""
    record = json.loads((run / "run.json").read_text())
    steps = [{**step, "seconds": 0.0, "reused": False} for step in record["steps"] if step["step"] != "rollout"]
    (run / "run.json").write_text(json.dumps({**record, "outcome": outcome, **more, "steps": steps}))
    return write_report(run, run / "report.html").read_text()


def test_the_page_of_a_registered_run_is_that_of_its_folder(story_runs: dict[str, Path], tmp_path: Path) -> None:
    made = write_gathered(apart(story_runs["clean"], tmp_path / "minio"), tmp_path / "out" / "page", seed=0)
    assert made.read_text() == as_in_a_folder(story_runs["clean"], "registered")
    assert "time in steps" not in made.read_text()
    assert list((tmp_path / "out").iterdir()) == [made]


def test_the_page_of_a_stopped_run_names_what_stopped_it(story_runs: dict[str, Path], tmp_path: Path) -> None:
    made = write_gathered(apart(story_runs["broken"], tmp_path / "minio"), tmp_path / "page", seed=0).read_text()
    assert made == as_in_a_folder(story_runs["broken"], "stopped", stopped_at="schema")


def test_a_run_that_was_judged_and_not_registered_passed(story_runs: dict[str, Path], tmp_path: Path) -> None:
    artifacts = apart(story_runs["clean"], tmp_path / "minio", ("register", "rollout"))
    assert ">passed<" in write_gathered(artifacts, tmp_path / "page", seed=0).read_text()


def test_an_artifact_of_another_run_is_not_shown(story_runs: dict[str, Path], tmp_path: Path) -> None:
    artifacts = apart(story_runs["clean"], tmp_path / "minio")
    planted = apart(story_runs["poisoned"], tmp_path / "other")
    swapped = [*artifacts[:-1], Ref(planted[-1].folder, artifacts[-1].digest)]
    if planted[-1].digest == artifacts[-1].digest:
        swapped = [Ref(planted[4].folder, artifacts[4].digest), *artifacts[:4], *artifacts[5:]]
    with pytest.raises(IntegrityError, match=r"expected artifact .*, found"):
        write_gathered(swapped, tmp_path / "page", seed=0)
    assert not (tmp_path / "page").exists()


def test_what_is_no_run_is_one_line(story_runs: dict[str, Path], tmp_path: Path) -> None:
    artifacts = apart(story_runs["clean"], tmp_path / "minio")
    with pytest.raises(ArtifactError, match="expected one artifact of each step, found two of snapshot"):
        write_gathered([artifacts[0], artifacts[0]], tmp_path / "page", seed=0)
    with pytest.raises(ArtifactError, match="expected the artifacts of a run, found no snapshot among 1"):
        write_gathered(artifacts[2:3], tmp_path / "page", seed=0)


def test_the_command_takes_a_folder_or_artifacts_and_not_both(story_runs: dict[str, Path], tmp_path: Path) -> None:
    run = str(story_runs["clean"])
    words = [f"--artifact={one.folder}@{one.digest}" for one in apart(story_runs["clean"], tmp_path / "minio")]
    out = f"--out={tmp_path / 'page'}"
    assert CliRunner().invoke(app, ["report", *words, "--seed=0", out]).exit_code == 0
    assert (tmp_path / "page").read_text().startswith("<!doctype html>")
    for wrong in ([run, *words, out], [], words):
        assert CliRunner().invoke(app, ["report", *wrong]).exit_code == 2
