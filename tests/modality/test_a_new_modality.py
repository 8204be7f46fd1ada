"""A fourth modality is one module and two lines in files that are there; every step then takes it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
import holdfast_gates

TOY = Path(__file__).parent / "toy"
EDITS = {
    "artifacts/documents.py": [
        ('Modality = Literal["image", "tabular", "text"]', 'Modality = Literal["image", "tabular", "text", "survey"]')
    ],
    "modality/__init__.py": [
        (
            "from holdfast.modality.tabular",
            "from holdfast.modality.survey import Survey\nfrom holdfast.modality.tabular",
        ),
        ("(ImageInput(), TableInput(), TextInput())", "(ImageInput(), TableInput(), TextInput(), Survey())"),
    ],
}
"""File -> what is replaced there: the word in the vocabulary, and the row."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The packages with the fourth modality: one new module, and the edits above."""
    for package in (holdfast, holdfast_gates):
        source = Path(package.__path__[0])
        shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOY / "survey.py", tmp_path / "holdfast" / "modality")
    for name, pairs in EDITS.items():
        path = tmp_path / "holdfast" / name
        for old, new in pairs:
            assert path.read_text().count(old) == 1, f"{name}: {old}"
            path.write_text(path.read_text().replace(old, new))
    return tmp_path


def run(tree: Path) -> "subprocess.CompletedProcess[str]":
    (tree / "out").mkdir()
    command = [sys.executable, str(TOY / "run.py"), str(tree / "out")]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tree), "HOME": str(tree)}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


def test_every_step_takes_a_modality_that_two_files_name(tree: Path) -> None:
    done = run(tree)
    assert done.returncode == 0, done.stderr[-2000:]


def test_without_its_row_it_is_nowhere(tree: Path) -> None:
    rows = tree / "holdfast" / "modality" / "__init__.py"
    rows.write_text(rows.read_text().replace(", Survey()", ""))
    done = run(tree)
    assert "KeyError: 'survey'" in done.stderr
