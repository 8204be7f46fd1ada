"""This installation of Holdfast as a wheel again: the files that its RECORD lists, each with the hash that it lists."""

import base64
import csv
import hashlib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

from holdfast import __version__
from holdfast.errors import IntegrityError, SetupError

PACKAGES = ("holdfast", "holdfast_gates", "holdfast_pipelines")
_INSTALLERS = {"INSTALLER", "REQUESTED", "direct_url.json", "RECORD", "uv_cache.json", "uv_build.json"}
"""Of a wheel's metadata, what the installer wrote."""
_SITE = Path(__file__).resolve().parents[2]


@cache
def code_digest() -> str:
    """Digest of the names and hashes in this installation's RECORD; of the place alone where there is none."""
    listed = [f"{name} {digest}" for name, digest in _recorded()]
    return hashlib.sha256("\n".join(sorted(listed) or [str(_SITE)]).encode()).hexdigest()


def write_wheel(folder: Path) -> Path:
    """Writes the wheel that this installation came from into `folder`; its digest may differ, its files do not.

    Raises:
        SetupError: this is no installed wheel.
        IntegrityError: a file is not the one that was installed.
    """
    rows = [*_recorded()]
    if not rows:
        raise SetupError(f"{_SITE}: expected holdfast as a wheel installs it, found no RECORD of it")
    info = next(PurePosixPath(name).parts[0] for name, _ in rows if ".dist-info/" in name)
    path = folder / f"holdfast-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, digest in rows:
            wheel.writestr(name, _checked(_SITE / name, digest))
        lines = [f"{name},{digest},{(_SITE / name).stat().st_size}\n" for name, digest in rows]
        wheel.writestr(f"{info}/RECORD", "".join([*lines, f"{info}/RECORD,,\n"]))
    return path


def _checked(path: Path, digest: str) -> bytes:
    """The bytes of an installed file, which are those that were installed."""
    content = path.read_bytes()
    found = "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    if found != digest:
        raise IntegrityError(f"{path}: expected {digest} as installed, found {found}; install holdfast again")
    return content


def _recorded() -> Iterator[tuple[str, str]]:
    """Name and hash of every file that the wheel brought."""
    found = _distribution()
    for name, digest, _ in csv.reader((found and found.read_text("RECORD") or "").splitlines()):
        parts = PurePosixPath(name).parts
        ours = parts[0] in PACKAGES or (parts[0].endswith(".dist-info") and parts[-1] not in _INSTALLERS)
        if ours and digest and not name.endswith(".pyc"):
            yield name, digest


def _distribution() -> Distribution | None:
    """The metadata next to this very code: not those of another installation that the path names first."""
    if not (_SITE / "holdfast").is_dir():
        return None
    return next(iter(distributions(name="holdfast", path=[str(_SITE)])), None)
