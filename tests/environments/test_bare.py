"""A wheel alone: every command works, or names in one line what it needs."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.environments.conftest import ROOT

WALK = Path(__file__).with_name("walk.py")


def run(python: Path, folder: Path, *commands: list[str], **env: str) -> list[tuple[list[str], int, str]]:
    """Words, exit code and output of every command, or of these, each in a fork of one interpreter."""
    own = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "XDG_DATA_HOME")}
    own |= {"HOME": str(folder), "PATH": "/usr/bin:/bin", "COLUMNS": "200", **env}
    done = subprocess.run(
        [str(python), str(WALK), json.dumps(commands)], cwd=folder, env=own, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [(words, code, said) for words, code, said in json.loads(done.stdout)]


NEEDS = {
    "run --workload digits": ("the extra 'pipelines', found no module", "pip install 'holdfast[pipelines]'"),
    "demo": ("the extra 'pipelines', found no module", "pip install 'holdfast[pipelines]'"),
    "compile": ("the extra 'pipelines', found no module 'kfp'", "pip install 'holdfast[pipelines]'"),
    "submit --endpoint http://x --workload digits --tracking http://x": ("the extra 'pipelines'", "pip install"),
    "report .": ("the extra 'pipelines', found no module", "pip install 'holdfast[pipelines]'"),
    "snapshot --config digits --out s": ("the environment 'data', found no module 'sklearn'", "env create data"),
    "rollout start --name a --version 1 --out r": ("the environment 'serving'", "holdfast env create serving"),
    "rollout history --name a --tracking http://x": ("the environment 'serving', found no module 'mlflow'", "env"),
    "verify models:/a@champion --tracking http://x": ("the extra 'model', found no module 'mlflow'", "env create"),
    "env create data": ("uv on the PATH, found none", "pip install 'holdfast[env]'"),
}
"""Command -> what its line expects, and what it names as the remedy."""


def test_the_line_names_the_extra_or_the_environment_and_the_command(bare, tmp_path):
    found = run(bare, tmp_path, *(words.split() for words in NEEDS))
    for (words, code, said), (what, remedy) in zip(found, NEEDS.values(), strict=True):
        assert code in (1, 2), words
        assert said.startswith("holdfast: ")
        assert said.count("\n") == 1
        assert f"expected {what}" in said
        assert remedy in said


@pytest.mark.nightly
def test_every_command_works_or_says_in_a_line_what_it_needs(bare, tmp_path):
    found = run(bare, tmp_path)
    assert len(found) > 40
    for words, code, said in found:
        assert "Traceback" not in said, (words, said)
        assert code in (0, 1, 2, 3), (words, code, said)
        assert code == 0 or said.strip(), words
        assert "make" not in said.split(), (words, said)


def test_the_wheel_holds_the_locks_its_settings_and_where_its_pages_are(bare):
    (site,) = bare.parents[1].glob("lib/python3*/site-packages")
    for name in ("build", "data", "model", "serving"):
        ours = (ROOT / "components" / "locks" / f"{name}.txt").read_bytes()
        assert (site / "holdfast" / "locks" / f"{name}.txt").read_bytes() == ours
    assert (site / "holdfast" / "locks" / "pyproject.toml").read_bytes() == (ROOT / "pyproject.toml").read_bytes()
    about = next(site.glob("holdfast-*.dist-info/METADATA")).read_text()
    assert "Project-URL: Repository, https://" in about
    assert "(docs/" not in about
    assert "/blob/main/docs/threat-model.md)" in about


def test_doctor_knows_no_makefile_and_agrees_with_a_run(bare, tmp_path):
    (tmp_path / "python").symlink_to(bare)
    ((_, _, said),) = run(bare, tmp_path, ["doctor", "--json"], HOLDFAST_DATA_PYTHON=str(tmp_path / "python"))
    found = json.loads(said)
    rows = {row["name"]: row for row in found["environments"]}
    assert rows["data"]["python"] == found["run"]["data steps"] == str(tmp_path / "python")
    assert rows["model"]["python"] is None
    assert "holdfast env create model" in found["run"]["model steps"]
