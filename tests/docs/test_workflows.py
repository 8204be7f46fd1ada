"""The workflows run what people run, with no more rights than they need."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param  # type: ignore[no-any-return]


def read(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text())  # type: ignore[no-any-return]


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_every_action_is_pinned_by_commit_and_says_its_version(path: Path) -> None:
    uses = re.findall(r"(?m)^.*\buses: .*$", path.read_text())
    assert uses
    for line in uses:
        assert re.search(r"uses: [\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_nothing_is_allowed_that_is_not_asked_for(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert job["permissions"] in ({}, {"contents": "read"}), name
        assert job["timeout-minutes"] <= 60, name


def test_code_of_a_pull_request_meets_no_secret(path: Path) -> None:
    text = path.read_text()
    assert not {"pull_request_target", "workflow_run"} & set(read(path)[True])  # YAML reads the key `on` as true
    assert "secrets." not in text
    for step in steps(read(path)):
        assert "${{" not in step.get("run", ""), "words from outside reach a shell through env only"
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_ci_runs_the_targets_that_people_run() -> None:
    runs = [step["run"] for step in steps(read(ROOT / ".github" / "workflows" / "check.yml")) if "run" in step]
    assert {"make test", "make demo", "make docs"} <= set(runs)


def test_the_aggregate_takes_nothing_but_success() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "check.yml")["jobs"]
    aggregate = jobs["ok"]
    assert aggregate["if"] == "always()"
    assert set(aggregate["needs"]) == set(jobs) - {"ok"}
    (step,) = aggregate["steps"]
    assert judged(step["run"], "success success") == 0
    assert judged(step["run"], "success skipped") != 0
    assert judged(step["run"], "cancelled success") != 0


def judged(program: str, results: str) -> int:
    """The exit code of the aggregate's own program."""
    command = ["bash", "-e", "-c", program]
    return subprocess.run(command, env={"RESULTS": results}, capture_output=True, check=False).returncode


def test_the_night_runs_every_test() -> None:
    nightly = read(ROOT / ".github" / "workflows" / "nightly.yml")
    assert nightly[True]["schedule"]
    assert "make test-all" in [step["run"] for step in steps(nightly) if "run" in step]


def test_the_night_runs_the_demo_on_a_minimal_system() -> None:
    (job,) = (job for job in read(ROOT / ".github" / "workflows" / "nightly.yml")["jobs"].values() if asks(job))
    (installed, *_, test) = (step["run"] for step in job["steps"] if "run" in step)
    assert "debootstrap" in installed
    assert test.startswith("sudo ")  # tools/minimal-system needs root
    assert test.endswith(" -m pytest -v tests/e2e/test_minimal_system.py")


def asks(job: dict[str, Any]) -> bool:
    """Whether a job asks for the test that needs ten minutes and 10 GB."""
    return any("HOLDFAST_MINIMAL=1" in step.get("run", "") for step in job["steps"])


def test_only_what_is_marked_nightly_is_left_out_of_make_test() -> None:
    by_day, by_night = (pytest_lines(target) for target in ("test", "test-all"))
    assert len(by_day) == len(by_night) == 4
    for day, night in zip(by_day, by_night, strict=True):
        assert day.split() == night.replace(" -m pytest", ' -m pytest -m "not nightly"').split()


def pytest_lines(target: str) -> list[str]:
    """The lines with which a target runs pytest, without running them."""
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if " -m pytest" in line]
