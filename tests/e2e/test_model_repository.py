"""A model repository under the pull-request gate: the action's own steps, as tests/e2e/actions.py runs them."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.e2e.actions import Job, run_lines

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
    (checkout / ".holdfast" / "pr-gate" / "summary.md").write_text("the pull request claims: pass")
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


@pytest.fixture
def gitlab(tmp_path: Path, checkout: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs the script of a job of the template for GitLab, with a `holdfast` that notes its words."""
    template = yaml.safe_load((ACTION / "examples" / "gitlab-ci.yml").read_text())
    for environment in (".venv", ".venv-docs"):
        program = tmp_path / "holdfast-5" / environment / "bin" / "holdfast"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path / "words"}\nenv > {tmp_path / "env"}\nexit 3\n')
        program.chmod(0o755)
    (tmp_path / "holdfast-5" / "Makefile").write_text("setup comment:\n\t@echo made $@\n")

    def run(job: str, **env: str) -> "subprocess.CompletedProcess[str]":
        given = {**template["variables"], "CI_BUILDS_DIR": str(tmp_path), "CI_JOB_ID": "5", **env}
        return run_lines(template[job]["script"], checkout, {name: str(value) for name, value in given.items()})

    return run


def test_gitlabs_check_is_the_gates_exit_code_and_the_gate_has_no_token(gitlab, tmp_path):
    diff, target = "b" * 40, "d" * 40
    env = {"CI_COMMIT_SHA": "a" * 40, "CI_MERGE_REQUEST_DIFF_BASE_SHA": diff, "GITLAB_TOKEN": "secret"}
    done = gitlab("robustness-gate", **env)
    assert done.returncode == 3
    assert "made setup" in done.stdout.splitlines()
    words = (tmp_path / "words").read_text().splitlines()
    assert words == ["pr-gate", f"--base={diff}", f"--head={'a' * 40}", "--out=.holdfast/pr-gate"]
    assert "secret" not in (tmp_path / "env").read_text()
    gitlab("robustness-gate", **env, CI_MERGE_REQUEST_TARGET_BRANCH_SHA=target, HOLDFAST_WORKLOAD="a b.yaml")
    words = (tmp_path / "words").read_text().splitlines()
    assert words[1] == f"--base={target}"
    assert words[-1] == "--workload=a b.yaml"


def test_gitlabs_comment_goes_to_the_commit_that_gitlab_names(gitlab, tmp_path):
    env = {"CI_COMMIT_SHA": "a" * 40, "CI_PROJECT_ID": "7", "CI_API_V4_URL": "https://gitlab.example.com/api/v4"}
    assert gitlab("robustness-comment", **env).returncode == 3
    words = (tmp_path / "words").read_text().splitlines()
    assert words == [
        "pr-comment", "--host=gitlab", "--artifact=.holdfast/pr-gate", f"--sha={'a' * 40}", "--repository=7",
        "--api=https://gitlab.example.com/api/v4",
    ]  # fmt: skip
    gitlab("robustness-comment", **env, CI_MERGE_REQUEST_SOURCE_BRANCH_SHA="c" * 40)
    assert f"--sha={'c' * 40}" in (tmp_path / "words").read_text().splitlines()


@pytest.fixture
def fetched(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, str]]]:
    """Runs the first step of the comment's workflow with a `gh` that serves one artifact."""
    if shutil.which("unzip") is None:
        pytest.skip("needs unzip, which GitHub's runners have")
    (step, *_) = yaml.safe_load((ACTION / "examples" / "comment.yml").read_text())["jobs"]["comment"]["steps"]
    (tmp_path / "bin").mkdir()

    def run(files: dict[str, bytes], *, size: int | None = None) -> tuple[Path, dict[str, str]]:
        archive = tmp_path / "artifact.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in files.items():
                packed.writestr(name, data)
        listed = f"9 {archive.stat().st_size if size is None else size}" if files else ""
        gh = tmp_path / "bin" / "gh"
        gh.write_text(f'#!/bin/sh\ncase "$2" in */zip) cat {archive} ;; *) echo "{listed}" ;; esac\n')
        gh.chmod(0o755)
        (tmp_path / "output").write_text("")
        env = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "RUNNER_TEMP": str(tmp_path), "RUN": "1",
            "GITHUB_OUTPUT": str(tmp_path / "output"), "REPOSITORY": "o/r",
        }  # fmt: skip
        done = run_lines([step["run"]], tmp_path, env)
        assert done.returncode == 0, done.stderr
        lines = [line.partition("=") for line in (tmp_path / "output").read_text().splitlines()]
        return tmp_path / "gate" / "pr-gate.json", {name: value for name, _, value in lines}

    return run


def test_the_comment_takes_one_bounded_file_of_the_artifact(fetched, tmp_path):
    path, outputs = fetched({".holdfast/pr-gate/pr-gate.json": b"{}", "../../evil": b"x", "pr-gate/summary.md": b"y"})
    assert (path.read_bytes(), outputs) == (b"{}", {"folder": str(path.parent)})
    assert sorted(one.name for one in path.parent.iterdir()) == ["pr-gate.json"]
    path, _ = fetched({"pr-gate.json": b" " * 50_000_000})
    assert path.stat().st_size == 2**20 + 1, "longer than any report that is read"


def test_the_comment_does_not_fetch_what_is_missing_or_too_large(fetched):
    assert fetched({})[1] == {}
    assert fetched({"pr-gate.json": b"{}"}, size=10_000_001)[1] == {}


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
