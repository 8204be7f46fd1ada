"""The wheel, and a virtual environment with nothing but it and what it depends on; made offline."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
    (site,) = folder.glob("lib/python3*/site-packages")
    for path in set(base_files()):
        (site / path.name).symlink_to(path)
    return python


def base_files() -> Iterator[Path]:
    """Files and folders of the packages that the wheel needs without any extra, in this environment."""
    open_names, seen = [Requirement(text).name for text in PROJECT["project"]["dependencies"]], set()
    while open_names:
        name = open_names.pop().lower()
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        open_names += [one.name for text in found.requires or () if is_needed(one := Requirement(text))]
        tops = {Path(str(path)).parts[0] for path in found.files or ()} - {"..", "__pycache__"}
        yield from (Path(str(found.locate_file(top))) for top in tops)


def is_needed(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})
