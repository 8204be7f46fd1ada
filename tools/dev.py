"""Prints what a contributor needs: `make dev`. Standard library only; nothing is installed or changed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Command(NamedTuple):
    """Something to type, and what it does."""

    line: str
    purpose: str


class Option(NamedTuple):
    """Something that need not be here, and what it is for."""

    name: str
    purpose: str


COMMANDS = {
    "Set up": [
        Command(
            "make setup", "both environments from the locks, .venv and .venv-data (4.4 GB; minutes the first time)"
        ),
        Command("make hooks", "lint, format, types and generated files are checked before each commit"),
    ],
    "Test a part": [
        Command(".venv/bin/python -m pytest tests/gates -q", "a folder of tests; tests/ mirrors the packages"),
        Command(".venv-data/bin/python -m pytest tests/data -q", "the data steps, in their own environment"),
        Command("make test", "everything, with linters and types (within 25 minutes on two cores)"),
        Command("make demo", "the whole product on real data (two minutes)"),
    ],
    "Before a commit": [
        Command("make lint", "ruff, mypy, the layers of imports, and the bounds of tools/house.py"),
        Command("make compile", "after a change to a pipeline, a document, the workload or the policy"),
        Command("make lock", "after a change to a dependency in pyproject.toml"),
    ],
    "Read": [
        Command("docs/architecture.md", "the map, and where a change goes"),
        Command(".github/CONTRIBUTING.md", "how to set up, and what is looked for in a change"),
        Command("make docs", "all pages as a site with search: build/docs/site/index.html"),
    ],
}
VARIABLES = [
    Option("HOLDFAST_SHARED", "larger public data sets (a folder with data/)"),
    Option(
        "KUBEBUILDER_ASSETS",
        "a real Kubernetes API (a folder with kube-apiserver and etcd, from setup-envtest;"
        " in ../shared: tools/kube-assets, which makes one)",
    ),
    Option(
        "HOLDFAST_CRDS",
        "rollouts on Seldon (a folder with its custom resource definitions; in ../shared: crds)",
    ),
]
PROGRAMS = [
    Option("prometheus", "one test of the counters, skipped without it"),
    Option("chromium", "make picture"),
]
ENVIRONMENTS = (".venv", ".venv-data", ".venv-seldon", ".venv-docs")


def main() -> int:
    """Prints the commands, the environments and what optional tests find here."""
    sys.stdout.writelines(f"{line}\n" for line in lines(ROOT, os.environ))
    return 0


def lines(root: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """The whole text."""
    width = max(len(command.line) for commands in COMMANDS.values() for command in commands)
    for title, commands in COMMANDS.items():
        yield title
        yield from (f"  {command.line:{width}}  {command.purpose}" for command in commands)
        yield ""
    yield "Here"
    yield from (f"  {name:{width}}  {made(root / name)}" for name in ENVIRONMENTS)
    yield from (f"  {name:{width}}  {variable(environment.get(name))}: {purpose}" for name, purpose in VARIABLES)
    yield from (f"  {name:{width}}  {program(name)}: {purpose}" for name, purpose in PROGRAMS)


def made(environment: Path) -> str:
    """Whether an environment is complete."""
    return "made" if (environment / ".done").exists() else "not made yet; the target that needs it makes it"


def variable(value: str | None) -> str:
    """What an environment variable holds."""
    if not value:
        return "not set, its tests are skipped unless ../shared has what they need"
    return value if Path(value).is_dir() else f"{value} (no such folder)"


def program(name: str) -> str:
    """Where a program is."""
    return shutil.which(name) or "not on the PATH"


if __name__ == "__main__":
    sys.exit(main())
