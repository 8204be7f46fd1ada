"""The wheel, and a virtual environment with nothing but it and what it depends on; made offline."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.environments.links import link_packages

ROOT = Path(__file__).parents[2]
UV = ROOT / ".uv" / "bin" / "uv"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def uv(*words: object, cwd: Path = ROOT) -> None:
    if not UV.exists():
        pytest.skip("needs uv: make setup")
    command = [str(UV), *map(str, words), "-q", "--offline"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--build-constraints=components/locks/build.txt", f"--out-dir={out}")
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and its base dependencies, which are links to those here."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    uv("venv", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    uv("pip", "install", "--python", python, "--no-deps", wheel)
    link_packages(python, PROJECT["project"]["dependencies"])
    return python
