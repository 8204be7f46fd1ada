"""What is installed here, which step runs where, what a run would use. Imports none of the heavy libraries."""

import os
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from holdfast.cli.settings import settings_of_a_run
from holdfast.errors import RunError
from holdfast.steps import STEPS, names, of

GPU = f"{', '.join(names(step for step in STEPS if step.computes))} run on it with --device cuda; nothing else changes"
NO_GPU = "none found, all steps run on the CPU; one makes adversarial training on images above 32 x 32 practical"


@dataclass(frozen=True)
class Environment:
    """One environment as found here."""

    name: str
    python: str | None
    packages: dict[str, str | None]
    steps: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether every package is there."""
        return all(self.packages.values())


@dataclass(frozen=True)
class Examination:
    """What doctor found."""

    holdfast: str
    python: str
    cores: int
    gpu: bool
    gpu_adds: str
    environments: tuple[Environment, ...]
    run: dict[str, str]
    """What `holdfast run` would use: name -> value."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        found = asdict(self)
        for environment, row in zip(self.environments, found["environments"], strict=True):
            row["ready"] = environment.ready
        return found


def examine(root: Path) -> Examination:
    """Looks at the interpreters that a run in the folder `root` would use."""
    from holdfast import __version__
    from holdfast.environments import LIBRARIES

    gpu = shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()
    return Examination(
        holdfast=__version__,
        python=".".join(map(str, sys.version_info[:3])),
        cores=os.cpu_count() or 1,
        gpu=gpu,
        gpu_adds=GPU if gpu else NO_GPU,
        environments=tuple(map(_environment, LIBRARIES)),
        run=settings_of_a_run(root, gpu=gpu),
    )


def table(found: Examination) -> str:
    """The examination for a person."""
    from holdfast.environments import how_to_get

    lines = [
        f"holdfast {found.holdfast}, Python {found.python}, {found.cores} cores",
        f"GPU: {'yes; ' if found.gpu else ''}{found.gpu_adds}",
        "",
    ]
    for environment in found.environments:
        state = "ready" if environment.ready else "not here"
        lines.append(f"{environment.name:10} {state:9} {environment.python or ''}")
        lines += [f"{'':10} {name} {number or 'missing'}" for name, number in environment.packages.items()]
        if environment.steps:
            lines.append(f"{'':10} steps: {', '.join(environment.steps)}")
        if not environment.ready:
            lines.append(f"{'':10} to get it: {how_to_get(environment.name)}")
    width = max(map(len, found.run))
    lines += ["", "holdfast run would use", *(f"  {name:{width}}  {value}" for name, value in found.run.items())]
    return "\n".join(lines)


def _environment(name: str) -> Environment:
    from holdfast.environments import LIBRARIES

    python, wanted = _interpreter(name), LIBRARIES[name]
    prefix = None if python is None or str(python) == sys.executable else python.parent.parent
    packages = {package: _here(package) if prefix is None else _in(prefix, package) for package in wanted}
    return Environment(name, None if python is None else str(python), packages, names(of(name)))


def _interpreter(name: str) -> Path | None:
    """The one that a run uses, too."""
    from holdfast.environments import interpreter

    try:
        return interpreter(name)
    except RunError:
        return None


def _here(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _in(folder: Path, package: str) -> str | None:
    """The version of `package` in a virtual environment, by its metadata folder."""
    pattern = f"lib/python3*/*-packages/{package.replace('-', '_')}-*.dist-info"
    found = next(iter(folder.glob(pattern)), None)
    return found.name.removesuffix(".dist-info").rpartition("-")[2] if found else None
