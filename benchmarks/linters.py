"""Linters of workflows, manifests and images as rows: what they find. What is left out has its reason in the files.

zizmor is in the locks; actionlint, checkov and hadolint are run where they are on PATH, and otherwise their rows read
"not run".
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.table import ROOT, Row, at_most, shown
from holdfast.errors import RunError

WORKFLOWS = (
    ".github/workflows/check.yml", ".github/workflows/nightly.yml", ".github/workflows/release.yml",
    ".github/workflows/robustness-gate.yml",
    ".github/actions/robustness-gate/examples/pull-request.yml",
    ".github/actions/robustness-gate/examples/comment.yml",
    "tests/e2e/model-repo/.github/workflows/robustness-gate.yml",
)  # fmt: skip
"""Ours, and those that people copy."""
ACTIONS = (".github/actions/robustness-gate/action.yml",)
RECIPES = ("components/Containerfile", "manifests/components/mlflow/Containerfile")
PATCHES = ("base/verify/init-container.yaml", "components/seldon-v2/server.yaml")
"""What no overlay of ours holds, below manifests/."""


def zizmor() -> Row:
    """Its findings on the workflows, pedantic."""
    program = Path(sys.executable).with_name("zizmor")
    words = ["--offline", "--pedantic", "--no-progress", "--format=json", "--no-exit-codes"]
    found = _findings([str(program), *words, *WORKFLOWS, *ACTIONS])
    what = f"findings of zizmor, pedantic, on {len(WORKFLOWS)} workflows and an action"
    return at_most(what, len(found), 0, f"{_version(str(program))}, one ignored with its reason")


def actionlint() -> Row:
    """Its findings on the workflows."""
    program, what = shutil.which("actionlint"), f"findings of actionlint on {len(WORKFLOWS)} workflows"
    if program is None:
        return shown(what, "not run", "no actionlint on PATH")
    found = _findings([program, "-format", "{{json .}}", *WORKFLOWS])
    return at_most(what, len(found), 0, _version(program, "-version"))


def hadolint() -> Row:
    """Its findings on the recipes of the images."""
    program, what = shutil.which("hadolint"), f"findings of hadolint on {len(RECIPES)} recipes of images"
    if program is None:
        return shown(what, "not run", "no hadolint on PATH")
    return at_most(what, len(_findings([program, "--format=json", *RECIPES])), 0, _version(program))


def checkov() -> Row:
    """Its findings on the objects of the overlays, with their namespaces, as a cluster gets them.

    Raises:
        RunError: kubectl, which renders the overlays, is not here or fails.
    """
    program, what = shutil.which("checkov"), "findings of checkov on the rendered overlays and patches"
    if program is None:
        return shown(what, "not run", "no checkov on PATH")
    with TemporaryDirectory() as folder:
        _render(Path(folder))
        words = ["-d", folder, "--framework", "kubernetes", "-o", "json", "--compact", "--quiet"]
        total = _json([program, *words], "{")["summary"]
    how = f"{_version(program)}, {total['passed']} checks, {total['skipped']} skipped with their reasons in the files"
    return at_most(what, total["failed"], 0, how)


def _render(folder: Path) -> None:
    for patch in PATCHES:
        shutil.copy(ROOT / "manifests" / patch, folder)
    for overlay in sorted((ROOT / "manifests" / "overlays").iterdir()):
        done = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunError(f"{overlay}: expected an overlay that renders, found {done.stderr[-300:]}")
        (folder / f"{overlay.name}.yaml").write_text(done.stdout)


def _findings(command: Sequence[str]) -> list[object]:
    return list(_json(command, "["))


def _json(command: Sequence[str], begins: str) -> dict[str, dict[str, int]]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.stdout.lstrip().startswith(begins):
        raise RunError(f"{command[0]}: expected findings as JSON, found {done.stderr[-300:] or done.stdout[:300]}")
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


def _version(program: str, option: str = "--version") -> str:
    done = subprocess.run([program, option], capture_output=True, text=True, check=True)
    name, first = Path(program).name, done.stdout.splitlines()[0]
    return first if name in first.lower() else f"{name} {first}"
