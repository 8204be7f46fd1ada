"""Makes an environment of the steps from the locks that travel in the wheel, through uv.

Every package is checked against the lock's hashes, but for builds of torch for GPUs, and Holdfast's own files against
the RECORD of this installation. The note that makes an environment count as ready is written last.
"""

import csv
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast import resources
from holdfast.artifacts.folder import replace_file
from holdfast.environments.installed import write_wheel
from holdfast.environments.places import NOTE, TORCH, EnvironmentFolder, checkout, made_of
from holdfast.errors import SetupError
from holdfast.progress import say
from holdfast.wording import listed

CPU = "cpu"
_PYTHON = "3.11"
"""What the locks were resolved for."""


def create(place: EnvironmentFolder, torch_backend: str | None = None) -> bool:
    """Makes the environment at `place`; returns whether there was anything to do.

    A whole one is left alone; one that is broken, of another version, or half made is made again.

    Args:
        place: which environment, and in which folder; a folder with other things in it is refused.
        torch_backend: the build of torch as uv names them (cpu, cu130, ...); None takes what is there, or uv's choice.

    Raises:
        SetupError: a source tree, no uv, no Python 3.11, a folder of others, or uv failed; nothing counts as ready.
    """
    if (tree := checkout()) is not None:
        raise SetupError(
            f"{tree}: expected an installed wheel, found a source tree; `make setup` makes its environments"
        )
    uv = find_uv()
    place.folder.mkdir(parents=True, exist_ok=True)
    with _alone(place.folder):
        if _is_whole(place) and torch_backend in (None, place.note.get("torch")):
            return False
        _require_ours(place.folder)
        _make(uv, place, torch_backend or place.note.get("torch") or "auto")
    return True


def find_uv() -> str:
    """The program uv: on the PATH, or from the extra `env` of this environment.

    Raises:
        SetupError: there is none.
    """
    near = Path(sys.executable).with_name("uv")
    found = shutil.which("uv") or (str(near) if near.exists() else None)
    if found is None:
        raise SetupError("env create: expected uv on the PATH, found none; pip install 'holdfast[env]'")
    return found


def _make(uv: str, place: EnvironmentFolder, torch: str) -> None:
    _empty(place.folder)
    say(f"{place.environment}: {place.folder}, from the lock ({len(_pins(place.environment))} packages)")
    call = _Uv(uv, place)
    call.run("venv", "--allow-existing", "--python", _python(), str(place.folder))
    call.install("--require-hashes", "--no-deps", "-r", str(resources.lock(place.environment)))
    if place.environment != "data":
        call.install(*torch_words(torch, os.environ.get("PIP_FIND_LINKS")))
    with tempfile.TemporaryDirectory() as folder:
        call.install("--no-deps", str(write_wheel(Path(folder))))
    call.check([str(place.python), "-W", "ignore", "-m", "holdfast.warm", "bytecode"], "its libraries")
    note = {"environment": place.environment, "torch": torch, "made_of": made_of(place.environment)}
    replace_file(place.folder / NOTE, json.dumps(note).encode())


def torch_words(backend: str, links: str | None) -> list[str]:
    """What uv is given to install torch: by hash where it is the CPU build, which the lock `torch-cpu` holds.

    Args:
        backend: as uv names them; `auto` with a folder of wheels: the build that is there.
        links: a folder of wheels or a page that links to them; one that is not on this machine is not used.
    """
    here = Path(links).absolute() if links and Path(links).exists() else None
    source = ["--torch-backend", backend] if here is None else ["--find-links", str(here)]
    if backend == CPU or (backend == "auto" and here is not None and any(here.glob("torch-*+cpu-*.whl"))):
        return [*source, "--require-hashes", "--no-deps", "-r", str(resources.lock(f"torch-{CPU}"))]
    return [*source, TORCH]


class _Uv:
    """uv for one environment, with the settings of pyproject.toml: wheels, besides a few packages of pure Python."""

    def __init__(self, uv: str, place: EnvironmentFolder) -> None:
        self.uv, self.place = uv, place

    def install(self, *words: str) -> None:
        """Installs into the environment."""
        build = str(resources.lock("build"))
        self.run("pip", "install", "--python", str(self.place.python), "--build-constraints", build, *words)

    def run(self, *words: str) -> None:
        """Runs uv."""
        self.check([self.uv, *(() if sys.stderr.isatty() else ("-q",)), *words], f"uv {words[0]}")

    def check(self, command: list[str], what: str) -> None:
        """Runs a command that must succeed; on a terminal its words are seen as they come."""
        shown = None if sys.stderr.isatty() else subprocess.PIPE
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(
            command, cwd=resources.lock("build").parent, env={**env, "UV_PYTHON_DOWNLOADS": "never"},
            stdin=subprocess.DEVNULL, stdout=shown, stderr=shown, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            words = " ".join((done.stderr or f"exit code {done.returncode}").split())
            raise SetupError(f"{self.place.folder}: {what} failed: {words[:600]}; run the same command again")


def _python() -> str:
    """The interpreter that the locks are for: this one, if it is one."""
    return sys.executable if sys.version_info[:2] == (3, 11) else _PYTHON


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder for this process alone; another that makes it is waited for."""
    handle = os.open(folder, os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _require_ours(folder: Path) -> None:
    others = [path.name for path in folder.iterdir()]
    if others and NOTE not in others:
        raise SetupError(f"{folder}: expected an empty folder, or an environment made here, found {listed(others)}")


def _empty(folder: Path) -> None:
    """Leaves nothing but a note that the environment is in the making."""
    replace_file(folder / NOTE, b"{}")
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != NOTE:
            path.unlink()


def _is_whole(place: EnvironmentFolder) -> bool:
    """Whether it is ready, starts, and has every file of every package that its lock names."""
    if not place.is_ready:
        return False
    site = place.folder / "lib" / f"python{_PYTHON}" / "site-packages"
    there = {_normal(path.name.partition("-")[0]): path for path in site.glob("*.dist-info")}
    wanted = {*map(_normal, _pins(place.environment)), "holdfast", *(() if place.environment == "data" else ("torch",))}
    if not wanted <= there.keys() or not all(map(_has_its_files, there.values())):
        return False
    command = [str(place.python), "-I", "-c", "import holdfast"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _has_its_files(info: Path) -> bool:
    try:
        rows = [row for row in csv.reader((info / "RECORD").read_text().splitlines()) if row]
        return all((info.parent / row[0]).stat().st_size == int(row[2]) for row in rows if row[2:] and row[2])
    except (OSError, ValueError):
        return False


def _pins(environment: str) -> list[str]:
    return re.findall(r"(?m)^([A-Za-z0-9._-]+)==", resources.lock(environment).read_text())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
