"""A model repository under the pull-request gate: the action's own steps, as tests/e2e/actions.py runs them."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.actions import Job

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github" / "actions" / "robustness-gate"
AUTHOR = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false")
Make = Callable[..., Job]


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *AUTHOR, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What actions/checkout leaves of a pull request: the merge, on top of the base branch."""
    folder = tmp_path / "workspace"
    shutil.copytree(Path(__file__).with_name("model-repo"), folder)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "base")
    git(folder, "checkout", "-q", "-b", "change")
    git(folder, "commit", "-q", "--allow-empty", "-m", "change")
    git(folder, "checkout", "-q", "main")
    git(folder, "merge", "-q", "--no-ff", "-m", "merge", "change")
    return folder


@pytest.fixture
def job(tmp_path: Path, checkout: Path) -> Make:
    """A job on the runner; what is uploaded lies in `uploaded`, and `make` only notes what it was asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "make").write_text('#!/bin/sh\necho "make $*"\n')
    (tmp_path / "bin" / "make").chmod(0o755)

    def upload(given: dict[str, str]) -> dict[str, str]:
        (tmp_path / "uploaded").mkdir()
        for pattern in given["path"].split():
            for path in checkout.glob(pattern):
                if path.is_file():
                    shutil.copy(path, tmp_path / "uploaded")
        return {}

    def make(action: Path = ACTION) -> Job:
        (tmp_path / "runner").mkdir()
        uses = {
            "actions/setup-python": lambda given: {"python-path": sys.executable},
            "actions/upload-artifact": upload,
        }
        env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        return Job(action, checkout, tmp_path / "runner", uses, env)

    return make


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[int], Path]:
    """The action in a tree whose `holdfast` notes its words and ends with this code."""

    def make(code: int, results: str = "all is well") -> Path:
        tree = tmp_path / "holdfast"
        shutil.copytree(ACTION, tree / ".github" / "actions" / "robustness-gate")
        (tree / ".venv" / "bin").mkdir(parents=True)
        writes = f"""
            mkdir -p "$out"; echo {shlex.quote(results)} > "$out/summary.md"
            echo "::error file=a,line=1::x" > "$out/annotations.txt"; echo "{{}}" > "$out/pr-gate.json"
        """
        (tree / ".venv" / "bin" / "holdfast").write_text(f"""#!/bin/bash
            printf '%s\\n' "$@" > {tmp_path / "words"}; env > {tmp_path / "env"}
            for word in "$@"; do case $word in --out=*) out=${{word#--out=}} ;; esac; done
            {writes if results else ""}
            echo "::set-env name=X::from the pull request"
            exit {code}
        """)
        (tree / ".venv" / "bin" / "holdfast").chmod(0o755)
        return tree / ".github" / "actions" / "robustness-gate"

    return make


@pytest.mark.parametrize(
    ("code", "verdict"), [(0, "pass"), (3, "fail"), (4, "inconclusive"), (1, "error"), (143, "error")]
)
def test_the_check_is_the_gates_exit_code(job, stand_in, code, verdict):
    done = job(stand_in(code)).run()
    assert done.outputs["gate"]["verdict"] == verdict
    assert done.failed is (code != 0)


def test_a_gate_leaves_summary_annotations_and_artifact_also_when_it_fails(job, stand_in, tmp_path):
    done = job(stand_in(3)).run()
    assert done.summary == "all is well\n"
    assert "::error file=a,line=1::x" in done.log.splitlines()
    assert sorted(path.name for path in (tmp_path / "uploaded").iterdir()) == ["pr-gate.json", "summary.md"]


def test_a_gate_without_a_verdict_is_no_pass_and_leaves_no_verdict_of_before(job, stand_in, checkout):
    (checkout / ".holdfast" / "pr-gate").mkdir(parents=True)
    (checkout / ".holdfast" / "pr-gate" / "summary.md").write_text("pass, says the pull request")
    done = job(stand_in(1, results="")).run()
    assert done.failed
    assert "There is no verdict" in done.summary
    assert "pass" not in done.summary


def test_a_gate_that_ends_well_and_wrote_nothing_is_no_pass(job, stand_in):
    done = job(stand_in(0, results="")).run()
    assert (done.outputs["gate"]["verdict"], done.failed) == ("error", True)


def test_inputs_reach_the_command_as_words_and_never_the_shell(job, stand_in, tmp_path, checkout):
    evil = "$(touch ran); `touch ran`\" ' && touch ran #"
    job(stand_in(0)).run(workload=evil, base="--data=x", champion=evil, compare="false", policy_from="head")
    words = (tmp_path / "words").read_text().splitlines()
    assert words == [
        "pr-gate", "--base=--data=x", "--head=HEAD", "--policy-from=head", "--out=.holdfast/pr-gate",
        f"--workload={evil}", f"--champion={evil}", "--no-compare",
    ]  # fmt: skip
    assert not (checkout / "ran").exists()


def test_code_of_a_pull_request_neither_commands_the_runner_nor_knows_its_files(job, stand_in, tmp_path):
    done = job(stand_in(0)).run()
    lines = done.log.splitlines()
    begins = next(number for number, line in enumerate(lines) if line.startswith("::stop-commands::"))
    token = lines[begins].removeprefix("::stop-commands::")
    assert len(token) == 32
    assert begins < lines.index("::set-env name=X::from the pull request") < lines.index(f"::{token}::")
    told = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert not told & {"GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STATE", "GITHUB_STEP_SUMMARY"}


def test_holdfast_is_installed_from_the_locks_of_the_action_itself(job, stand_in):
    action = stand_in(0)
    assert f"make -C {action}/../../.. setup" in job(action).run().log


@pytest.mark.nightly
@pytest.mark.e2e
def test_the_example_repository_passes_as_it_is_and_a_weaker_recipe_is_refused(job, checkout, tmp_path):
    done = job().run()
    assert (done.outputs["gate"]["verdict"], done.failed) == ("pass", False), done.log
    report = json.loads((tmp_path / "uploaded" / "pr-gate.json").read_text())
    assert {check["name"] for check in report["checks"]} >= {"robust_accuracy", "base_clean", "base_robust"}
    assert done.summary.startswith("<!-- holdfast:gate:small-digits -->")
    for place in ("uploaded", "runner"):
        shutil.rmtree(tmp_path / place)
    text = (checkout / "workload.yaml").read_text()
    (checkout / "workload.yaml").write_text(text.replace("recipe: pgd", "recipe: standard"))
    git(checkout, "commit", "-q", "-a", "-m", "merge of a weaker recipe")
    done = job().run()
    assert (done.outputs["gate"]["verdict"], done.failed) == ("fail", True), done.log
    assert "::error file=workload.yaml,line=" in done.log
