"""The suite reports what it left out, on one core and on two."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

def test_by_day():
    pass

@pytest.mark.nightly
@pytest.mark.parametrize("number", range(3))
def test_by_night(number):
    pass
"""


def outcome(folder: Path, *words: str) -> str:
    """What pytest prints about a small suite with our conftest and our settings."""
    (folder / "tests").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "tests" / "test_small.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("cores", [[], ["-n", "2"]], ids=["one process", "workers"])
def test_tests_left_to_the_night_are_counted(tmp_path, cores):
    printed = outcome(tmp_path / "suite", *cores, "-m", "not nightly")
    assert "holdfast: 3 tests left to `make test-all`" in printed
    assert "1 passed" in printed


def test_nothing_is_said_when_nothing_is_left_out(tmp_path):
    printed = outcome(tmp_path / "suite")
    assert "4 passed" in printed
    assert "left to" not in printed
