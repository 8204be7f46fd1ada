"""What a contributor is told and given: `make dev`, `make hooks`, the editor's settings."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HOOKS = [
    hook for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"] for hook in repo["hooks"]
]


def printed() -> str:
    done = subprocess.run([sys.executable, "tools/dev.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_every_target_that_make_dev_prints_exists():
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    named = set(re.findall(r"(?m)^  make ([a-z-]+)", printed()))
    assert {"setup", "lint", "test", "docs", "hooks"} <= named <= targets


def test_every_file_that_make_dev_prints_exists():
    paths = re.findall(r"(?m)^  (\S+\.md) ", printed()) + re.findall(r"-m pytest (\S+)", printed())
    assert len(paths) == 4
    assert all((ROOT / path).exists() for path in paths)


def test_what_is_absent_is_printed_with_the_tests_that_are_skipped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOLDFAST_CRDS", str(ROOT))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    lines = {line.split()[0]: line for line in printed().splitlines() if line.strip()}
    assert f"{ROOT}: rollouts on Seldon" in lines["HOLDFAST_CRDS"]
    assert "not set, its tests are skipped unless ../shared has what they need" in lines["KUBEBUILDER_ASSETS"]


def test_what_the_folder_of_shared_files_may_have_is_named(monkeypatch: pytest.MonkeyPatch):
    names = ("HOLDFAST_SHARED", "HOLDFAST_CRDS", "KUBEBUILDER_ASSETS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    lines = {line.split()[0]: line for line in printed().splitlines() if line.strip()}
    assert all("unless ../shared has" in lines[name] for name in names)
    assert "in ../shared: crds" in lines["HOLDFAST_CRDS"]
    assert "in ../shared: tools/kube-assets" in lines["KUBEBUILDER_ASSETS"]


def test_hooks_run_the_tools_of_the_environment_and_fetch_nothing():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repo["repo"] for repo in repos} == {"local"}
    assert {hook["language"] for hook in HOOKS} == {"system"}
    programs = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in HOOKS}
    assert programs == {"ruff", "mypy", "lint-imports", "python"}


def test_hooks_hold_lint_types_and_generated_files():
    assert [hook["id"] for hook in HOOKS] == ["ruff", "ruff-format", "mypy", "layers", "house", "generated"]


@pytest.mark.parametrize("path", ["components/holdfast/artifacts/documents.py", "manifests/schemas/model.json"])
def test_the_hook_of_generated_files_looks_at_sources_and_results(path):
    (generated,) = (hook for hook in HOOKS if hook["id"] == "generated")
    assert re.search(generated["files"], path)
    assert not re.search(generated["files"], "docs/index.md")


def test_the_test_that_the_hook_selects_is_there():
    text = (ROOT / "tests" / "manifests" / "test_compiled.py").read_text()
    assert len(re.findall(r"def test_the_committed_\w+_are_what", text)) == 2


def test_the_editor_is_told_what_the_linter_holds():
    settings = configparser.ConfigParser()
    settings.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    length = re.search(r"(?m)^line-length = (\d+)$", (ROOT / "pyproject.toml").read_text())
    assert length is not None
    assert settings["*"]["max_line_length"] == length[1]
    assert settings["{Makefile,*.mk}"]["indent_style"] == "tab"
