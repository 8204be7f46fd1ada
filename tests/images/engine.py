"""One container, restricted as a pod of Holdfast is: podman (or docker) in place of the kubelet.

Non-root, read-only root, no capabilities, no new privileges, no network unless it is asked for, the memory limit of the
pod. HOLDFAST_ENGINE names the engine, HOLDFAST_IMAGES what stands before `/holdfast/data:0.1.0` (localhost).
"""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from holdfast import containers

USER = 65532
CGROUPS = Path("/sys/fs/cgroup")
RESTRICTED = (
    "--read-only", "--tmpfs=/tmp:rw,exec,mode=1777", "--cap-drop=ALL", "--security-opt=no-new-privileges",
    f"--user={USER}:{USER}",
)  # fmt: skip


@dataclass(frozen=True)
class ContainerEnd:
    """What became of a container."""

    code: int
    log: str
    wall: float
    """Seconds from the engine's start to its end."""
    cpu: float | None
    """User and system seconds of the container; None where there is no control group to read."""
    peak: int | None
    """Bytes of memory at most."""


@dataclass(frozen=True)
class Mount:
    """A folder of this machine in a container."""

    source: Path
    target: str
    readonly: bool = False

    @property
    def option(self) -> str:
        """As the engine takes it."""
        return f"--volume={self.source}:{self.target}{':ro' if self.readonly else ''}"


@dataclass(frozen=True)
class Container:
    """What is run, and with what; otherwise as every pod of ours."""

    image: str
    command: Sequence[str]
    mounts: Sequence[Mount] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    memory: str | None = None
    """Such as `512m`."""
    network: str = "none"
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the pod."""


def engine() -> str | None:
    """The engine's program, where there is one that works."""
    return _engine(os.environ.get("HOLDFAST_ENGINE", "podman"))


@cache
def _engine(name: str) -> str | None:
    program = shutil.which(name)
    if program is None:
        return None
    done = subprocess.run([program, "info"], capture_output=True, check=False, timeout=60)
    return program if done.returncode == 0 else None


def image(environment: str) -> str:
    """The name under which the tests look for the image of an environment."""
    return containers.image(environment, registry=os.environ.get("HOLDFAST_IMAGES", "localhost"))


@cache
def missing() -> str | None:
    """Why no container can be run here; None: they can."""
    program = engine()
    if program is None:
        return "no container engine that works (podman; HOLDFAST_ENGINE names another)"
    for name in map(image, containers.ENVIRONMENTS):
        if subprocess.run([program, "image", "inspect", name], capture_output=True, check=False).returncode:
            return f"no image {name}; `make images` builds it"
    return None


def run(container: Container, *, seconds: float = 540) -> ContainerEnd:
    """Runs a container to its end.

    Args:
        container: what.
        seconds: after which it is removed.

    Raises:
        subprocess.TimeoutExpired: it did not end in time.
    """
    program, name = engine(), f"holdfast-{uuid.uuid4().hex[:12]}"
    assert program is not None, missing()
    group = _Group(name)
    words = [program, "run", "--rm", f"--name={name}", f"--network={container.network}", *RESTRICTED, *group.options]
    words += [mount.option for mount in container.mounts]
    words += [f"--env={key}={value}" for key, value in container.env.items()]
    words += [f"--memory={container.memory}", f"--memory-swap={container.memory}"] if container.memory else []
    with TemporaryDirectory() as folder:  # conmon leaves a file `oom` where it was started
        return _run([*words, container.image, *container.command], name, group, folder, seconds)


def _run(words: list[str], name: str, group: "_Group", folder: str, seconds: float) -> ContainerEnd:
    start = time.monotonic()
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        subprocess.run([words[0], "rm", "--force", name], capture_output=True, check=False)
        raise
    wall = time.monotonic() - start
    return ContainerEnd(done.returncode, done.stdout, wall, group.cpu(), group.peak())


class _Group:
    """A control group (v1) above the container's own: it is still there when the container is gone."""

    def __init__(self, name: str) -> None:
        self._folders = [CGROUPS / kind / name for kind in ("cpuacct", "memory")]
        try:
            for folder in self._folders:
                folder.mkdir()
        except OSError:
            self._folders = []
        self.options = [f"--cgroup-parent=/{name}"] if self._folders else []

    def cpu(self) -> float | None:
        found = self._read(0, "cpuacct.usage")
        return None if found is None else found / 1e9

    def peak(self) -> int | None:
        found = self._read(1, "memory.max_usage_in_bytes")
        for folder in self._folders:
            try:
                folder.rmdir()
            except OSError:
                continue
        return found

    def _read(self, which: int, name: str) -> int | None:
        return int((self._folders[which] / name).read_text()) if self._folders else None
