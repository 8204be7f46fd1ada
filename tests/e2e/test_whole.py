"""The main job, end to end, as a user runs it: one process tree, real data, real MLflow, MLServer and Envoy."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from holdfast.artifacts.documents import GateDecision, Model
from holdfast.artifacts.folder import load, load_any
from holdfast.artifacts.inspect import verify_chain

pytestmark = pytest.mark.e2e
STEPS = [
    "snapshot",
    "baseline",
    "schema",
    "drift",
    "scan",
    "train",
    "backdoor",
    "attack",
    "certify",
    "gate",
    "register",
]


def command(folder: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "holdfast", "run", "--workload", "breast-cancer", "--out", str(folder / "run"),
        "--tracking", f"sqlite:///{folder}/mlflow.db", "--threads", "1", "--json", *more,
    ]  # fmt: skip


def run(folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(folder, *more), cwd=folder, capture_output=True, text=True, check=False, timeout=540)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def first(folder: Path) -> dict[str, Any]:
    done = run(folder)
    assert done.returncode == 0, done.stderr[-4000:]
    record: dict[str, Any] = json.loads(done.stdout)
    return record


@pytest.fixture(scope="module")
def kept(folder: Path, first: dict[str, Any]) -> Path:
    """The artifacts of the first run; later ones replace them in its folder."""
    return shutil.copytree(folder / "run" / "steps", folder / "kept")


def test_a_clean_delivery_is_promoted(first: dict[str, Any], kept: Path) -> None:
    assert first["outcome"] == "promoted"
    assert first["model_version"] == 1
    assert [step["step"] for step in first["steps"]] == [*STEPS, "rollout"]
    assert {step["verdict"] for step in first["steps"]} == {"pass"}


def test_every_artifact_leads_back_to_the_data(folder: Path, first: dict[str, Any]) -> None:
    steps = folder / "run" / "steps"
    findings = verify_chain(steps / "gate", steps)
    assert {finding.state for finding in findings} == {"ok"}
    assert "snapshot" in {finding.role.rpartition(" < ")[2] for finding in findings}


def test_the_champion_in_mlflow_is_the_model_that_the_gate_judged(folder: Path, first: dict[str, Any]) -> None:
    program = """
import json, sys, numpy as np, mlflow
mlflow.set_tracking_uri(sys.argv[1])
from sklearn.datasets import load_breast_cancer
frame = load_breast_cancer(as_frame=True).data
answers = mlflow.pyfunc.load_model("models:/breast-cancer@champion").predict(frame)
print(json.dumps([str(label) for label in answers.iloc[:, 0]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{folder}/mlflow.db"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = np.array(json.loads(done.stdout.splitlines()[-1]))
    data = load_breast_cancer()
    model = load(folder / "run" / "steps" / "train", Model).document
    assert np.mean(answers == data.target_names[data.target]) == pytest.approx(model.clean.share, abs=0.05)


def test_the_report_stands_beside_the_run(folder: Path, first: dict[str, Any]) -> None:
    page = (folder / "run" / "report.html").read_text()
    assert load(folder / "run" / "steps" / "gate", GateDecision).digest[:12] in page


def test_a_second_run_reuses_what_did_not_change_and_makes_no_second_version(
    folder: Path, first: dict[str, Any]
) -> None:
    # The first run made a champion, so the baseline and what follows from it is new; a third run changes nothing more.
    for _ in range(2):
        done = run(folder, "--no-rollout")
        assert done.returncode == 0, done.stderr[-4000:]
    record = json.loads(done.stdout)
    assert record["model_version"] == 1
    reused = {step["step"] for step in record["steps"] if step["reused"]}
    assert reused >= {"schema", "drift", "scan", "train", "backdoor", "attack", "certify"}


def test_steps_that_are_fresh_processes_make_the_same_bytes(folder: Path, first: dict[str, Any], kept: Path) -> None:
    place = folder / "isolated"
    place.mkdir()
    done = run(place, "--isolated", "--no-rollout")
    assert done.returncode == 0, done.stderr[-4000:]
    assert not any(step["reused"] for step in json.loads(done.stdout)["steps"])
    made = {path.relative_to(kept): path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    steps = place / "run" / "steps"
    again = {path.relative_to(steps): path.read_bytes() for path in steps.rglob("*") if path.is_file()}
    # The registration names MLflow's run, whose number is drawn.
    compared = {path for path in again if path.parts[0] != "register"}
    assert {path.parts[0] for path in compared} == set(STEPS) - {"register"}
    assert {str(path) for path in compared if made.get(path) != again[path]} == set()


@pytest.mark.parametrize("moment", ["snapshot", "scan", "train"])
def test_a_killed_run_leaves_nothing_torn_and_no_process(folder: Path, first: dict[str, Any], moment: str) -> None:
    place = folder / f"killed-{moment}"
    place.mkdir()
    process = subprocess.Popen(command(place), cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(moment):
            break
    children = _descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _wait_until_gone(children)
    for document in place.rglob("artifact.json"):
        artifact = load_any(document.parent)
        for name in artifact.document.files:
            artifact.path(name)


def _descendants(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent(entry) == pid:
            found += [int(entry.name), *_descendants(int(entry.name))]
    return found


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def _wait_until_gone(pids: list[int]) -> None:
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        import select

        ended = select.poll()
        ended.register(handle, select.POLLIN)
        assert ended.poll(30_000), f"process {pid} is still there 30 s after its runner was killed"
        os.close(handle)
