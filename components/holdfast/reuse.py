"""Unchanged steps are not run again: what a step made is kept under the digest of everything that made it.

The key is the SHA-256 of the image, the command (with every input folder replaced by its artifact's digest and every
output by its name), the installed code of Holdfast and of the workload, and the environment's packages. An entry is a
complete copy, written by rename, and is verified byte by byte before it is used: a damaged one is a miss.

Digests alone would let whoever can write to the cache compute them again over a report of their own. So an entry has a
seal: HMAC-SHA256 of its key and outputs under a secret in the user's private state, which no other user reads.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, load_any, write_new
from holdfast.errors import ArtifactError
from holdfast.progress import say

PACKAGES = ("holdfast", "holdfast_gates")
"""The code that steps run."""
_OUTPUTS, _SEAL = "outputs.json", "seal"
_SECRET, _SECRET_BYTES = "reuse.key", 32
_PARTIAL = ".partial"
_STALE_SECONDS = 3600.0


@dataclass(frozen=True)
class CachedStep:
    """What a step made: its artifact and its output parameters (`digest`, `verdict`, ...)."""

    artifact: Path
    outputs: dict[str, str]


class Cache:
    """Entries by key, in one folder; without a secret there are none. Left out, it is that of the user."""

    def __init__(self, folder: Path, secret: bytes | None = None) -> None:
        self.folder = folder.resolve() / "steps"
        self.secret = _secret() if secret is None else secret

    def find(self, key: str) -> CachedStep | None:
        """The entry of `key` when there is one and every byte of it is as it was written."""
        place = self.folder / key
        try:
            written = (place / _OUTPUTS).read_bytes()
            if not hmac.compare_digest((place / _SEAL).read_bytes(), self._seal(key, written)):
                raise ArtifactError(f"{place}: expected an entry that this user kept, found another one")
            outputs = json.loads(written)
            entry = CachedStep(place / "artifact", outputs)
            verified(entry)
        except (OSError, ValueError, KeyError, TypeError, ArtifactError) as error:
            if place.exists():
                say(f"reuse: refused what was kept: {error}")
            shutil.rmtree(place, ignore_errors=True)
            return None
        return entry

    def keep(self, key: str, entry: CachedStep) -> None:
        """Stores a copy of `entry`; an interrupted copy leaves nothing under `key`."""
        if not self.secret:
            return
        place, written = self.folder / key, json.dumps(entry.outputs).encode()
        self.folder.mkdir(parents=True, exist_ok=True)
        _sweep(self.folder)
        work = Path(tempfile.mkdtemp(prefix=".", suffix=_PARTIAL, dir=self.folder))
        try:
            shutil.copytree(entry.artifact, work / "artifact")
            (work / _OUTPUTS).write_bytes(written)
            (work / _SEAL).write_bytes(self._seal(key, written))
            shutil.rmtree(place, ignore_errors=True)
            work.rename(place)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _seal(self, key: str, outputs: bytes) -> bytes:
        if not self.secret:
            raise ArtifactError("expected the user's secret, found none")
        return hmac.digest(self.secret, key.encode() + b"\n" + outputs, "sha256").hex().encode()


def copy_artifact(source: Path, out: Path) -> None:
    """Copies a complete artifact so that `out` appears complete or not at all."""
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=_PARTIAL, dir=out.parent))
    try:
        shutil.copytree(source, work, dirs_exist_ok=True)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def step_key(image: str, command: Iterable[str], *, code: str, environment: str) -> str:
    """The digest of everything that decides what a step makes; `command` already holds digests instead of folders."""
    return _digest_of([image, code, environment, *command])


def pinned(text: str, pins: Mapping[str, str]) -> str:
    """`text` with every path of `pins` replaced by what is pinned there (longest path first)."""
    for path in sorted(pins, key=len, reverse=True):
        text = text.replace(path, pins[path])
    return text


def code_digest(own: Iterable[Path] = ()) -> str:
    """Digest of the installed source of Holdfast, and of the user's `own` files."""
    return _digest_of([*(_package_digest(name) for name in PACKAGES), _files_digest(tuple(sorted(own)))])


@cache
def environment_digest(python: Path) -> str:
    """Digest of the packages, with their versions, in the environment of the interpreter `python`."""
    prefix = python.parent.parent
    installed = sorted(path.name for path in prefix.glob("lib/python3*/site-packages/*.dist-info"))
    return _digest_of([str(os.path.realpath(python)), *installed])


@cache
def _package_digest(name: str) -> str:
    spec = find_spec(name)
    places = spec.submodule_search_locations if spec is not None else None
    return _files_digest(tuple(sorted(path for place in places or () for path in Path(place).rglob("*.py"))))


def _files_digest(files: tuple[Path, ...]) -> str:
    return _digest_of([f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files])


def _digest_of(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _secret() -> bytes:
    """The user's secret, made the first time; empty where none can be kept, or others could read it."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    path = Path(home) / "holdfast" / _SECRET
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                write_new(path, secrets.token_bytes(_SECRET_BYTES))
        about, found = path.lstat(), path.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        say(f"reuse: expected a place for the secret {path}, found none ({error}): every step runs again")
        return b""
    private = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o077
    if not private or len(found) != _SECRET_BYTES:
        say(
            f"reuse: {path}: expected {_SECRET_BYTES} bytes that only this user reads, found others: "
            "every step runs again"
        )
        return b""
    return found


def _sweep(folder: Path) -> None:
    """Removes copies that a killed run left half-done; a young one may still be in the making."""
    for path in folder.glob(f".*{_PARTIAL}"):
        if path.stat().st_mtime < time.time() - _STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def verified(entry: CachedStep) -> Artifact[Any]:
    """The artifact of an entry, after every byte of it was found to be the pinned one, and no other file was there.

    Raises:
        ArtifactError: otherwise.
    """
    artifact = load_any(Ref(entry.artifact, entry.outputs["digest"]))
    for name in artifact.document.files:
        artifact.path(name)
    found = {path.relative_to(entry.artifact).as_posix() for path in entry.artifact.rglob("*") if not path.is_dir()}
    if found != {DOCUMENT, *artifact.document.files}:
        raise ArtifactError(f"{entry.artifact}: expected the pinned files and no others")
    return artifact
