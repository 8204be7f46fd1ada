"""The pods of manifests/base and of every overlay as a kubelet makes them.

What a container mounts, its user must be able to read or write.

The rules are those of Kubernetes' sources (pkg/volume/projected, pkg/volume/util/atomic_writer, volume_linux): files
of ConfigMaps, Secrets, the downward API and projections belong to root and have the volume's mode; with `fsGroup` they
belong to that group, which can then read them; only a projected token is handed to the container's own user. A claim's
folder belongs to root until `fsGroup` hands it over; an empty folder is open to all.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests import rendered

BASE = Path(__file__).parents[2] / "manifests" / "base"
ROOT, PLAIN, FOLDER = 0, 0o644, 0o755


@dataclass(frozen=True)
class Mounted:
    """A file (or the folder of a volume) in a container: whose it is, and what the container wants of it."""

    where: str
    owner: int
    group: int
    mode: int
    user: int
    groups: tuple[int, ...]
    writes: bool

    def allowed(self) -> bool:
        """What the kernel would answer."""
        needed = 0o2 if self.writes else 0o4
        if self.user == self.owner:
            return bool(self.mode >> 6 & needed)
        return bool((self.mode >> 3 if self.group in self.groups else self.mode) & needed)


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    yield from bases()
    yield from rendered.pods()


def bases() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(BASE.rglob("*.yaml")):
        for body in yaml.safe_load_all(path.read_text()):
            spec = body.get("spec", {}) if body else {}
            template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
            if template is not None:
                yield f"{path.parent.name}/{body['metadata']['name']}", template["spec"]


def mounted(pod: dict[str, Any]) -> Iterator[Mounted]:
    volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
    for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
        whole = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        shared = pod.get("securityContext", {}).get("fsGroup")
        user, groups = whole["runAsUser"], (whole["runAsGroup"], *(() if shared is None else (shared,)))
        for mount in container.get("volumeMounts", ()):
            where = f"{container['name']}:{mount['mountPath']}"
            for name, owner, mode, writes in files(volumes[mount["name"]], mount, user, shared):
                yield Mounted(f"{where}{name}", owner, ROOT if shared is None else shared, mode, user, groups, writes)


def files(
    volume: dict[str, Any], mount: dict[str, Any], user: int, shared: int | None
) -> Iterator[tuple[str, int, int, bool]]:
    """(name, owner, mode, whether it is written to) of what the volume holds."""
    readable = 0 if shared is None else 0o040
    if "emptyDir" in volume:
        yield "", ROOT, 0o777, True
    elif "persistentVolumeClaim" in volume:
        yield "", ROOT, FOLDER | (0 if shared is None else 0o020), not mount.get("readOnly", False)
    elif "projected" in volume:
        mode = volume["projected"].get("defaultMode", PLAIN)
        for source in volume["projected"]["sources"]:
            own = "serviceAccountToken" in source
            yield f"/{next(iter(source))}", user if own else ROOT, mode | readable, False
    else:
        (kind,) = set(volume) - {"name"}
        assert kind in ("configMap", "secret", "downwardAPI"), kind
        yield f"/{kind}", ROOT, volume[kind].get("defaultMode", PLAIN) | readable, False


def test_every_user_can_read_what_it_mounts_and_write_where_it_writes() -> None:
    found = {name: list(mounted(pod)) for name, pod in pods()}
    assert {"rollout/holdfast-rollout-watchdog", "verify/any", "CronJob/holdfast-rollout"} <= set(found)
    wrong = [f"{name} {one.where}" for name, every in found.items() for one in every if not one.allowed()]
    assert wrong == []


def test_without_its_group_the_watchdog_could_not_start() -> None:
    pod = dict(pods())["rollout/holdfast-rollout-watchdog"]
    del pod["securityContext"]["fsGroup"]
    folder = "watchdog:/var/run/secrets/kubernetes.io/serviceaccount"
    assert [one.where for one in mounted(pod) if not one.allowed()] == [f"{folder}/configMap", f"{folder}/downwardAPI"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to make files of other users")
def test_the_kernel_agrees() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # other users are to reach the files
        _compare(Path(folder))


def _compare(folder: Path) -> None:
    for number, one in enumerate(each for _, pod in pods() for each in mounted(pod)):
        path = folder / str(number)
        path.write_bytes(b"x")
        os.chown(path, one.owner, one.group)
        path.chmod(one.mode)
        assert _opens(path, one) == one.allowed(), one


def _opens(path: Path, one: Mounted) -> bool:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups(list(one.groups))
            os.setgid(one.groups[0])
            os.setuid(one.user)
            os.close(os.open(path, os.O_WRONLY if one.writes else os.O_RDONLY))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_rights_follow_an_overlay_into_another_namespace() -> None:
    """Kustomize fills in the namespace of a subject that has none, and leaves one that has another."""
    named = [
        subject
        for path in (BASE / "rollout").glob("*.yaml")
        for body in yaml.safe_load_all(path.read_text())
        for subject in body.get("subjects", ())
    ]
    assert len(named) == 2
    assert not any("namespace" in subject for subject in named)
