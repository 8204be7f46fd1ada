"""A pod as a kubelet starts it, with podman as its runtime: volumes by owner and mode, variables, command, limits.

The image has the libraries; Holdfast's code is this tree's, mounted over it. HOLDFAST_ENGINE names the engine,
HOLDFAST_IMAGES what is written before `/holdfast/serving:0.1.0` (localhost).
"""

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / name for name in ("components", "gates", "pipelines")]
NOWHERE = "registry.invalid"
PLAIN = 0o644
UNITS = {"Mi": "m", "Gi": "g"}


@cache
def missing() -> str | None:
    """Why no pod can be run here."""
    named = os.environ.get("HOLDFAST_ENGINE")
    if named is None:
        return "takes minutes: HOLDFAST_ENGINE=podman starts the pods"
    engine = shutil.which(named)
    if os.getuid() != 0:
        return "needs root: files of a pod belong to several users"
    if engine is None or subprocess.run([engine, "info"], capture_output=True, check=False, timeout=60).returncode:
        return f"needs a container engine that works, found none with HOLDFAST_ENGINE={named}"
    wanted = local(f"{NOWHERE}/holdfast/serving:0.1.0")
    if subprocess.run([engine, "image", "inspect", wanted], capture_output=True, check=False).returncode:
        return f"needs the image {wanted}; `make images` builds it"
    return None


def local(image: str) -> str:
    """The name of an image on this machine."""
    return f"{os.environ.get('HOLDFAST_IMAGES', 'localhost')}/{image.removeprefix(NOWHERE).lstrip('/')}"


@dataclass
class Cluster:
    """What a pod's volumes and variables are made of, and where claims are kept."""

    folder: Path
    namespace: str
    configmaps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    token: str = ""
    authority: str = ""
    """The certificate of the API server, PEM."""
    annotations: Mapping[str, str] = field(default_factory=dict)

    def claim(self, name: str) -> Path:
        """The folder of a claim: root's, as a new disk is."""
        path = self.folder / "claims" / name
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass
class Pod:
    """One container of a pod spec that can be started."""

    cluster: Cluster
    spec: dict[str, Any]
    container: dict[str, Any]
    more: Mapping[str, str] = field(default_factory=dict)
    """Variables that an operator sets, and texts that it fills in: `{{.Name}}`."""
    extra: tuple[tuple[Path, str], ...] = ()
    """Folders that an operator mounts, read only."""
    network: str = "none"

    @property
    def security(self) -> dict[str, Any]:
        return {**self.spec.get("securityContext", {}), **self.container["securityContext"]}

    def start(self, *, without: Mapping[str, str] | None = None) -> list[str]:
        """The engine's command line. `without` replaces words of the command, where a test cannot wait so long."""
        user, group = self.security["runAsUser"], self.security["runAsGroup"]
        number, unit = re.fullmatch(r"(\d+)(\w+)", self.container["resources"]["limits"]["memory"]).groups()
        memory = f"{number}{UNITS[unit]}"
        shared = self.spec.get("securityContext", {}).get("fsGroup")
        words = [os.environ["HOLDFAST_ENGINE"], "run", "--rm", f"--name=pod-{uuid.uuid4().hex[:8]}"]
        words += [f"--network={self.network}", f"--user={user}:{group}", "--cap-drop=ALL"]
        words += ["--security-opt=no-new-privileges", f"--memory={memory}", f"--memory-swap={memory}"]
        words += ["--read-only", "--read-only-tmpfs=false"] if self.security["readOnlyRootFilesystem"] else []
        words += [] if shared is None else [f"--group-add={shared}"]
        words += [f"--volume={path}:{path}:ro" for path in (*SOURCES, ROOT / "manifests")]
        words += [f"--env=PYTHONPATH={':'.join(map(str, SOURCES))}"]
        words += [f"--volume={self._volume(mount)}" for mount in self.container.get("volumeMounts", ())]
        words += [f"--volume={source}:{target}:ro" for source, target in self.extra]
        environment = self.environment()
        words += [f"--env={key}={value}" for key, value in environment.items()]
        command = [*self.container.get("command", ()), *self.container.get("args", ())]
        command = [self._expanded(word, environment) for word in command]
        command = [(without or {}).get(word, word) for word in command]
        image = local(self.container["image"])
        head = ["--entrypoint=" + command[0]] if command else []
        return [*words, *head, image, *command[1:]]

    def run(self, seconds: float = 120, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Runs it to its end."""
        return subprocess.run(
            self.start(**options), cwd=self.cluster.folder, capture_output=True, text=True, timeout=seconds, check=False
        )

    def environment(self) -> dict[str, str]:
        found = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443", **self.more}
        for item in self.container.get("env", ()):
            value = item.get("value", self._from(item.get("valueFrom", {})))
            if value is not None:
                found[item["name"]] = value
        return found

    def _from(self, source: Mapping[str, Any]) -> str | None:
        if "fieldRef" in source:
            path = source["fieldRef"]["fieldPath"]
            named = re.fullmatch(r"metadata\.annotations\['(.+)'\]", path)
            return self.cluster.annotations[named[1]] if named else self.cluster.namespace
        for key, kept in (("configMapKeyRef", self.cluster.configmaps), ("secretKeyRef", self.cluster.secrets)):
            if key in source:
                wanted = source[key]
                found = kept.get(wanted["name"], {}).get(wanted["key"])
                assert found is not None or wanted.get("optional"), wanted
                return found
        return None

    def _expanded(self, word: str, environment: Mapping[str, str]) -> str:
        word = re.sub(r"\{\{\.(\w+)\}\}", lambda match: self.more[match[1]], word)
        return re.sub(r"\$\((\w+)\)", lambda match: environment.get(match[1], match[0]), word)

    def _volume(self, mount: Mapping[str, Any]) -> str:
        (volume,) = (one for one in self.spec["volumes"] if one["name"] == mount["name"])
        return f"{self._made(volume)}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"

    def _made(self, volume: Mapping[str, Any]) -> Path:
        if "persistentVolumeClaim" in volume:
            path = self.cluster.claim(volume["persistentVolumeClaim"]["claimName"])
            self._hand_over(path, writable=True)
            return path
        path = self.cluster.folder / "volumes" / f"{volume['name']}-{uuid.uuid4().hex[:8]}"
        path.mkdir(parents=True)
        if "emptyDir" in volume:
            path.chmod(0o777)
            return path
        for name, text, mode, owner in self._files(volume):
            file = path / name
            file.write_text(text)
            os.chown(file, owner, 0)
            file.chmod(mode)
        self._hand_over(path, writable=False)
        return path

    def _hand_over(self, path: Path, *, writable: bool) -> None:
        """`fsGroup`: what a volume holds becomes the group's, which may read it, and write where it is a disk."""
        shared = self.spec.get("securityContext", {}).get("fsGroup")
        if shared is None:
            return
        for one in (path, *path.rglob("*")):
            os.chown(one, -1, shared)
            own = (0o070 if writable else 0o050) | 0o2000 if one.is_dir() else (0o060 if writable else 0o040)
            one.chmod(one.stat().st_mode & 0o7777 | own)

    def _files(self, volume: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
        """(name, content, mode, owner) of the files of a ConfigMap, Secret or projection."""
        if "projected" in volume:
            mode, user = volume["projected"].get("defaultMode", PLAIN), self.security["runAsUser"]
            return [
                ("token", self.cluster.token, mode, user),
                ("ca.crt", self.cluster.authority, mode, 0),
                ("namespace", self.cluster.namespace, mode, 0),
            ]
        kind, kept = (
            ("configMap", self.cluster.configmaps) if "configMap" in volume else ("secret", self.cluster.secrets)
        )
        wanted = volume[kind]
        data = kept.get(wanted.get("name") or wanted.get("secretName"), {})
        assert data or wanted.get("optional"), wanted
        items = {item["key"]: item["path"] for item in wanted.get("items", ())} or {key: key for key in data}
        return [(path, data[key], wanted.get("defaultMode", PLAIN), 0) for key, path in items.items()] if data else []


def skip_without_an_engine() -> None:
    if reason := missing():
        pytest.skip(reason)
