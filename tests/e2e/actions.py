"""Runs a composite action's steps as GitHub's runner does, as far as ours need: shell, environment, files, conditions.

https://docs.github.com/en/actions/reference/workflows-and-actions/metadata-syntax: a step of the shell `bash` is run by
`bash --noprofile --norc -eo pipefail FILE`; after one that failed only those with `if: always()` run.
"""

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{ (inputs|steps)\.([\w.-]+) \}\}")
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
Used = Callable[[dict[str, str]], Mapping[str, str]]
"""Takes the place of an action that a step uses: its `with` -> its outputs."""


@dataclass
class Job:
    """A job that runs one composite action."""

    action: Path
    """The folder of action.yml."""
    workspace: Path
    """What actions/checkout left."""
    temporary: Path
    """RUNNER_TEMP."""
    uses: Mapping[str, Used]
    """By `OWNER/NAME`."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Of the runner."""
    log: str = ""
    failed: bool = False
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    """By the step's id."""

    @property
    def summary(self) -> str:
        """What $GITHUB_STEP_SUMMARY holds."""
        return (self.temporary / "summary").read_text()

    def run(self, **inputs: str) -> "Job":
        """Runs every step with these inputs, dashes as underscores; the others have their defaults."""
        metadata = yaml.safe_load((self.action / "action.yml").read_text())
        given = {name: one.get("default", "") for name, one in metadata["inputs"].items()}
        given |= {name.replace("_", "-"): value for name, value in inputs.items()}
        (self.temporary / "summary").touch()
        for step in metadata["runs"]["steps"]:
            if not self.failed or step.get("if") == "always()":
                self._step(step, given)
        return self

    def _step(self, step: dict[str, Any], inputs: Mapping[str, str]) -> None:
        def evaluated(text: object) -> str:
            return _EXPRESSION.sub(lambda found: self._value(found[1], found[2], inputs), str(text))

        if "uses" in step:
            values = {key: evaluated(value) for key, value in step.get("with", {}).items()}
            self.outputs[step.get("id", "")] = dict(self.uses[step["uses"].partition("@")[0]](values))
            return
        assert "${{" not in step["run"]
        output = self.temporary / "output"
        output.write_text("")
        env = self._environment(output) | {key: evaluated(value) for key, value in step.get("env", {}).items()}
        script = self.temporary / "script.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            [*BASH, str(script)], cwd=self.workspace, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False,
        )  # fmt: skip
        self.log += done.stdout
        self.failed = self.failed or done.returncode != 0
        lines = [line.partition("=") for line in output.read_text().splitlines()]
        self.outputs[step.get("id", "")] = {name: value for name, _, value in lines}

    def _value(self, context: str, name: str, inputs: Mapping[str, str]) -> str:
        if context == "inputs":
            return inputs[name]
        step, _, output = name.partition(".outputs.")
        return self.outputs.get(step, {}).get(output, "")

    def _environment(self, output: Path) -> dict[str, str]:
        files = {"GITHUB_OUTPUT": output, "GITHUB_STEP_SUMMARY": self.temporary / "summary"}
        files |= {name: self.temporary / name for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_STATE")}
        given = {name: str(path) for name, path in files.items()}
        given |= {"GITHUB_ACTION_PATH": str(self.action), "RUNNER_TEMP": str(self.temporary), "CI": "true"}
        return {**os.environ, **given, **self.env}


def run_lines(lines: list[str], folder: Path, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Runs a script as GitLab's runner does: its lines in one shell, which ends at the first that fails."""
    command = [*BASH, "-c", "\n".join(lines)]
    return subprocess.run(command, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, check=False)
