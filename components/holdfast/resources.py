"""Files that ship with the packages: workloads and locks, in the source tree or in an installed wheel."""

from importlib.util import find_spec
from pathlib import Path


def workloads() -> list[Path]:
    """The workload files that ship."""
    return sorted(_folder("holdfast_pipelines", "workloads").glob("*.yaml"))


LOCKED = ("data", "model", "serving")
"""The environments whose locks travel in the wheel."""


def lock(name: str) -> Path:
    """The lock of an environment, or `build`: that of what builds packages."""
    return _folder("holdfast", "locks") / f"{name}.txt"


def _folder(package: str, name: str) -> Path:
    """`name` inside the installed package, or next to it in the source tree."""
    spec = find_spec(package)
    assert spec is not None, f"{package} is part of this distribution"
    assert spec.origin is not None, f"{package} is a regular package"
    root = Path(spec.origin).parent
    inside = root / name
    return inside if inside.is_dir() else root.parent / name
