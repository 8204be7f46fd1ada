"""The workflows run what people run, with no more rights than they need."""

import json
import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
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

RELEASE = ROOT / ".github" / "workflows" / "release.yml"
RELEASE_RIGHTS = {
    "images": {"contents": "read", "packages": "write"},
    "sign-images": {"attestations": "write", "id-token": "write", "packages": "write"},
    "sign-wheel": {"attestations": "write", "id-token": "write"},
    "draft": {"contents": "write"},
}
"""Job of a release that may do more than read -> all that it may."""


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
        rights = RELEASE_RIGHTS.get(name, {"contents": "read"}) if path == RELEASE else {"contents": "read"}
        assert job["permissions"] in ({}, rights), name
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
    assert {"make test", "make demo", "make docs", "make dist", "make images"} <= set(runs)


def test_ci_installs_the_wheel_where_nothing_else_is_and_runs_steps_in_containers() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "check.yml")["jobs"]
    wheel, images = ("\n".join(step.get("run", "") for step in jobs[name]["steps"]) for name in ("wheel", "images"))
    assert "python -m venv empty" in wheel
    assert "make setup" not in wheel
    assert "holdfast env create data" in wheel
    assert wheel.index("make dist") < wheel.index("pip install")
    assert images.index("make images") < images.index("pytest -n 0 -rs tests/images")


@pytest.mark.parametrize("name", ["check.yml", "nightly.yml"])
def test_what_tests_fetch_is_pinned(name: str) -> None:
    text = (ROOT / ".github" / "workflows" / name).read_text()
    assert re.search(r"go install \S+/setup-envtest@v0\.0\.0-\d{14}-[0-9a-f]{12} ", text)
    fetched = re.search(r"for kind in ([\w ]+); do", text)
    assert fetched is not None
    for kind in fetched[1].split():
        assert re.search(rf"(?m)^ +[0-9a-f]{{64}}  mlops\.seldon\.io_{kind}\.yaml$", text), kind


# --- the release ------------------------------------------------------------------------------------------------------


def test_a_release_begins_with_a_tag_of_a_version_and_ends_with_a_draft() -> None:
    workflow = read(RELEASE)
    assert workflow[True] == {"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}}
    draft = workflow["jobs"]["draft"]["steps"][-1]["run"]
    assert "gh release create" in draft
    assert " --draft --verify-tag " in draft


def test_what_signs_a_release_runs_no_code_of_the_repository() -> None:
    for name, job in read(RELEASE)["jobs"].items():
        signs = job["permissions"].get("id-token") == "write" or job["permissions"].get("contents") == "write"
        checks_out = any(step.get("uses", "").startswith("actions/checkout@") for step in job["steps"])
        assert signs is not checks_out, name


def test_every_file_and_image_of_a_release_has_provenance_and_a_signature() -> None:
    jobs = read(RELEASE)["jobs"]
    environments = jobs["sign-images"]["strategy"]["matrix"]["environment"]
    assert environments == ["data", "model", "serving"]
    image, wheel = (steps({"jobs": {name: jobs[name]}}) for name in ("sign-images", "sign-wheel"))
    runs = ["\n".join(step.get("run", "") for step in part) for part in (image, wheel)]
    assert 'cosign sign --yes "$IMAGE"' in runs[0]
    assert "cosign attest --yes --type cyclonedx" in runs[0]
    assert "for file in dist/*.whl dist/*.tar.gz dist/*.cdx.json" in runs[1]
    for part in (image, wheel):
        assert [step for step in part if step.get("uses", "").startswith("actions/attest-build-provenance@")]
    assert set(jobs["draft"]["needs"]) == {"sign-images", "sign-wheel"}


def test_the_images_of_a_release_are_built_on_a_base_with_a_digest() -> None:
    (_, build, _) = read(RELEASE)["jobs"]["images"]["steps"]
    judge = build["run"].splitlines()[0]
    for base, code in (("python:3.11-slim", 1), ("", 1), (f"python:3.11-slim@sha256:{'0' * 64}", 0)):
        done = subprocess.run(["bash", "-c", judge], env={"BASE": base}, capture_output=True, check=False)
        assert done.returncode == code, base


@pytest.mark.parametrize("environment", ["data", "model", "serving"])
def test_the_bill_of_an_image_names_all_that_its_locks_hold(environment: str) -> None:
    made = json.loads(release("bill", environment).stdout)
    found = {one["name"]: one for one in made["components"]}
    lock = (ROOT / "components" / "locks" / f"{environment}.txt").read_text()
    assert set(re.findall(r"(?m)^([\w.-]+)==", lock)) <= set(found)
    assert ("torch" in found) is (environment != "data")
    assert all(one["properties"] for one in made["components"])
    validation = pytest.importorskip("cyclonedx.validation.json", reason="the validator is in the group foreign")
    schema = pytest.importorskip("cyclonedx.schema").SchemaVersion.V1_6
    assert validation.JsonStrictValidator(schema).validate_str(json.dumps(made)) is None


def test_the_notes_are_the_part_of_the_changelog_and_a_tag_of_another_version_is_refused() -> None:
    module = spec_from_file_location("release", ROOT / "tools" / "release.py")
    assert module is not None
    assert module.loader is not None
    tool = module_from_spec(module)
    module.loader.exec_module(tool)
    text = (
        "# Changelog\n\n## [Unreleased]\n- later\n\n## [0.1.0] - 2026-12-01\n### Added\n- first\n\n## [0.0.9]\n- old\n"
    )
    assert tool.notes("v0.1.0", text, "0.1.0") == "### Added\n- first\n"
    with pytest.raises(SystemExit, match=r"v0\.2\.0: expected v0\.1\.0, the version in pyproject"):
        tool.notes("v0.2.0", text, "0.1.0")
    with pytest.raises(SystemExit, match=r"expected a part ## \[0\.1\.0\]"):
        tool.notes("v0.1.0", "## [Unreleased]\n- later\n", "0.1.0")


def release(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "tools" / "release.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_updates_of_actions_wait_a_week() -> None:
    (update,) = read(ROOT / ".github" / "dependabot.yml")["updates"]
    assert update["package-ecosystem"] == "github-actions"
    assert update["cooldown"]["default-days"] >= 7


def test_the_owners_are_a_template_until_somebody_fills_it_in() -> None:
    lines = (ROOT / ".github" / "CODEOWNERS").read_text().splitlines()
    assert all(line.startswith("#") for line in lines)
    for line in lines:
        path = re.match(r"# (/\S+) +@OWNER/", line)
        assert path is None or (ROOT / path[1].lstrip("/")).exists(), line


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
