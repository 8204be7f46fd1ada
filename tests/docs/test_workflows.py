"""The workflows run what people run, with no more rights than they need."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTION = ROOT / ".github" / "actions" / "robustness-gate"
COMMENT = ACTION / "examples" / "comment.yml"
TO_COPY = (COMMENT, ACTION / "examples" / "pull-request.yml")
"""What people copy into their repositories."""
MODEL_REPOSITORY = ROOT / "tests" / "e2e" / "model-repo" / ".github" / "workflows" / "robustness-gate.yml"


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
        # `$/` is this file's own repository at the running commit.
        assert re.search(r"uses: ([\w-]+/[\w/.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$|\$/\.github/)", line), line


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


def test_zizmor_finds_nothing_also_where_it_is_pedantic() -> None:
    zizmor = Path(sys.executable).with_name("zizmor")
    if not zizmor.exists():
        pytest.skip("needs zizmor (make setup)")
    files = [ROOT / ".github", *TO_COPY, MODEL_REPOSITORY]
    done = subprocess.run(
        [str(zizmor), "--offline", "--pedantic", "--no-progress", "--color=never", *map(str, files)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.partition(".")[0]) == (0, "No findings to report"), done.stdout + done.stderr
    # The one dangerous trigger is that of the opt-in workflow, with its reason.
    assert done.stdout.count("(1 ignored)") == 1
    assert "zizmor: ignore[dangerous-triggers] no code" in COMMENT.read_text()


def test_actionlint_finds_nothing() -> None:
    actionlint = shutil.which("actionlint")
    if actionlint is None:
        pytest.skip("needs actionlint on PATH: no package of it is in the locks")
    files = [*WORKFLOWS, *TO_COPY, MODEL_REPOSITORY]
    done = subprocess.run([actionlint, *map(str, files)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_workflow_that_may_write_has_no_code_of_the_pull_request() -> None:
    (job,) = read(COMMENT)["jobs"].values()
    assert {name for name, right in job["permissions"].items() if right == "write"} == {"pull-requests"}
    for step in job["steps"]:
        assert "${{" not in step.get("run", "")
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["repository"] == "OWNER/holdfast"
            assert step["with"]["persist-credentials"] is False
    assert "github.event.workflow_run.head_sha" in job["steps"][-1]["env"]["SHA"]


def test_what_people_copy_has_no_more_rights_than_it_needs() -> None:
    for path in (*TO_COPY, MODEL_REPOSITORY):
        workflow = read(path)
        assert workflow["permissions"] == {}, path
        assert "secrets." not in path.read_text(), path
        assert "pull_request_target" not in workflow[True], path


def test_the_inputs_of_the_reusable_workflow_are_those_of_the_action() -> None:
    workflow = read(ROOT / ".github" / "workflows" / "robustness-gate.yml")
    action = read(ACTION / "action.yml")
    (step,) = (step for step in steps(workflow) if step["uses"].startswith("$/"))
    assert step["uses"] == f"$/{ACTION.relative_to(ROOT)}"
    assert set(step["with"]) == set(workflow[True]["workflow_call"]["inputs"]) <= set(action["inputs"])


def test_the_gitlab_template_keeps_the_token_from_the_gate_and_the_code_from_the_comment() -> None:
    template = read(ACTION / "examples" / "gitlab-ci.yml")
    gate, comment = template["robustness-gate"], template["robustness-comment"]
    assert any(line.startswith("env -u GITLAB_TOKEN ") for line in gate["script"])
    assert comment["variables"]["GIT_STRATEGY"] == "none"
    assert "$GITLAB_TOKEN" in comment["rules"][0]["if"]
