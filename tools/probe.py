"""What `make` needs of this machine, looked at before anything is downloaded.

Standard library only, and read by any Python since 3.7: an old one is told that it is old.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PYTHON = (3, 11)
"""The Python that the locks were resolved for."""
GLIBC = (2, 31)
"""The oldest C library that every locked wheel runs on: `--python-platform` of the Makefile's LOCK."""
MODULES = ("bz2", "ctypes", "lzma", "sqlite3", "ssl", "zlib")
"""Modules that a Python lacks that was built where a library's headers were absent."""


def main() -> int:
    """Prints the first requirement that is not met, in one line on standard error; 2 if there is one, 0 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--free-gb", type=float, default=0, help="what is about to be installed, in GB")
    lack = next(filter(None, lacks(Path.cwd(), parser.parse_args().free_gb)), None)
    if lack:
        sys.stderr.write(f"make: {lack}\n")
    return 2 if lack else 0


def lacks(folder: Path, free_gb: float) -> Iterator[str | None]:
    """One answer for each requirement, the most basic first: what is missing and what to do, or None."""
    yield system_lack(platform.system(), platform.machine())
    yield libc_lack(*platform.libc_ver())
    yield python_lack(sys.version_info[:2], sys.executable)
    yield modules_lack(MODULES, sys.executable)
    yield venv_lack(sys.executable)
    yield library_lack("libstdc++.so.6")
    yield space_lack(folder, free_gb)
    yield cache_lack(folder, uv_cache(), free_gb)


def system_lack(system: str, machine: str) -> str | None:
    """The locked wheels are made for Linux on x86-64."""
    if (system, machine) == ("Linux", "x86_64"):
        return None
    return f"expected Linux on x86_64, found {system} on {machine}; use a virtual machine or a container of it"


def libc_lack(name: str, version: str) -> str | None:
    """The wheels are linked with glibc; Alpine's musl cannot load them."""
    found = f"glibc {version}" if name == "glibc" else "another C library"
    if name == "glibc" and tuple(map(int, version.split(".")[:2])) >= GLIBC:
        return None
    oldest = ".".join(map(str, GLIBC))
    return f"expected glibc {oldest} or newer, found {found}; use Debian 11, Ubuntu 20.04 or newer"


def python_lack(version: tuple[int, ...], executable: str) -> str | None:
    """The interpreter has the version that the locks are for."""
    if version == PYTHON:
        return None
    found = ".".join(map(str, version))
    return f"expected Python 3.11, found {found} ({executable}); install it and set PYTHON=/path/to/python3.11"


def modules_lack(names: tuple[str, ...], executable: str) -> str | None:
    """Every named module of the standard library can be imported."""
    missing = ", ".join(name for name in names if not _imports(name))
    if not missing:
        return None
    return f"{executable} was built without {missing}; install a complete Python 3.11, set PYTHON=/path/to/python3.11"


def _imports(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True


def venv_lack(executable: str) -> str | None:
    """Debian and Ubuntu keep what venv needs in a package of its own."""
    if find_spec("venv") and find_spec("ensurepip"):
        return None
    return f"{executable} has no venv; install python3.11-venv (Debian 12: apt-get install python3-venv)"


def library_lack(name: str) -> str | None:
    """A shared library that wheels leave to the system can be loaded."""
    import ctypes

    try:
        ctypes.CDLL(name)
    except OSError:
        return f"expected the shared library {name}, found none; install it (Debian, Ubuntu: libstdc++6)"
    return None


def space_lack(folder: Path, free_gb: float) -> str | None:
    """The disk of `folder` has `free_gb` free."""
    found = shutil.disk_usage(folder).free / 1e9
    if found >= free_gb:
        return None
    return f"expected {free_gb:g} GB free in {folder}, found {found:.1f}; free some, or clone to another disk"


def cache_lack(folder: Path, cache: Path, free_gb: float) -> str | None:
    """A cache that is still to be made has room too, unless the disk is that of `folder`, where files are shared."""
    place = next(parent for parent in (cache, *cache.parents) if parent.exists())
    if place == cache or place.stat().st_dev == folder.stat().st_dev or not space_lack(place, free_gb):
        return None
    return f"expected {free_gb:g} GB free for uv's cache in {cache}; set UV_CACHE_DIR to a folder on another disk"


def uv_cache() -> Path:
    """The folder in which uv keeps what it downloads."""
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(os.environ.get("UV_CACHE_DIR") or Path(home, "uv"))


if __name__ == "__main__":
    sys.exit(main())
