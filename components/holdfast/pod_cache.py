"""Reuse on a cluster: before a step computes, it looks on a volume for what it made from the same inputs before.

KFP's own cache never hits after a step that ran (its key holds the ids of the input artifacts). Here the key is what
`holdfast run` has: the step, its settings, the digests of its inputs, the code, the installed packages, the image. An
entry is sealed with a key of the cluster's secret, and verified where it was copied to, before it is handed on.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from holdfast.artifacts.folder import Artifact, Ref, sha256_of, strict_json
from holdfast.compute import GPUS
from holdfast.errors import ArtifactError
from holdfast.progress import say
from holdfast.reuse import Cache, CachedStep, code_digest, copy_artifact, environment_digest, step_key, verified
from holdfast.steps import Step, find

FOLDER, SECRET, IMAGE = "HOLDFAST_CACHE", "HOLDFAST_CACHE_KEY", "HOLDFAST_IMAGE"
"""Variables of a pod: the folder on the volume, the key that seals its entries, the name of the pod's image."""
LEAST_CHARACTERS = 32
_NOT_INPUTS = ("out", "checkpoint", "attestations", "key")
"""Options that do not decide what a step makes."""
_OWN = re.compile(r"([A-Za-z_]\w*)(\.\w+)*:[A-Za-z_]\w*")


class _NoKeyError(Exception):
    """Something that decides what the step makes has no digest."""


@dataclass(frozen=True)
class PodCache:
    """Where a step's result may lie already, and under which key."""

    cache: Cache
    step: str
    key: str

    @classmethod
    def of(cls, name: str, given: Mapping[str, Any], env: Mapping[str, str]) -> "PodCache | None":
        """The cache of the step of that name with these options; None where the pod has none, or it must not be used.

        A step that reads something besides artifacts (the delivery, the registry) is never reused.
        """
        row, folder, secret = find(name), env.get(FOLDER), env.get(SECRET, "")
        if not folder or row is None or not row.reusable or not row.reads:
            return None
        if len(secret) < LEAST_CHARACTERS:
            say(f"{SECRET}: expected at least {LEAST_CHARACTERS} characters, found {len(secret)}: {name} runs")
            return None
        try:
            words = list(_words(row, given))
            own = _own_files(given.get("config", ""))
        except _NoKeyError as error:
            say(f"{name} runs: {error}")
            return None
        image = f"{env.get(IMAGE, '')} {env.get(GPUS, '')}"
        key = step_key(
            image, [name, *words], code=code_digest(own), environment=environment_digest(Path(sys.executable))
        )
        return cls(Cache(Path(folder), secret.encode()), name, key)

    def find(self, out: Path) -> Artifact[Any] | None:
        """Copies what was made before to `out`, and gives it after every byte of the copy was found to be right."""
        entry = self.cache.find(self.key)
        if entry is None:
            return None
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(out, ignore_errors=True)
            copy_artifact(entry.artifact, out)
            found = verified(CachedStep(out, entry.outputs))
        except (OSError, ArtifactError) as error:
            shutil.rmtree(out, ignore_errors=True)
            say(f"{self.step} runs: its copy on the volume cannot be used: {error}")
            return None
        say(f"{self.step}: reused {found.digest[:12]}…, made before from the same inputs")
        return found

    def keep(self, artifact: Artifact[Any]) -> None:
        """Puts a copy of what was made on the volume; a volume that is full or cannot be written to costs only that."""
        try:
            self.cache.keep(self.key, CachedStep(artifact.folder, {"digest": artifact.digest}))
        except OSError as error:
            say(f"{self.step}: not kept for reuse: {error}")


def _words(row: Step, given: Mapping[str, Any]) -> Iterator[str]:
    for name, value in sorted(given.items()):
        if name not in _NOT_INPUTS:
            yield f"{name}={_pinned(row, name, value)}"


def _pinned(row: Step, name: str, value: Any) -> str:
    """The value of an option with every folder and file replaced by its digest."""
    if name in (*row.reads, "part"):
        refs = [Ref.parse(one) for one in ([value] if isinstance(value, str) else value or ())]
        if any(one.digest is None for one in refs):
            raise _NoKeyError(f"--{name} has no digest")
        return ",".join(str(one.digest) for one in refs)
    if name == "config":
        return json.dumps([_digest_or_text(one) for one in _leaves(_section(value))])
    return str(value)


def _section(text: str) -> object:
    if not text.lstrip().startswith("{"):
        raise _NoKeyError("--config is no JSON")
    return strict_json(text.encode(), "--config")


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Every value with the keys that lead to it, in order."""
    if isinstance(value, dict):
        for name, one in sorted(value.items()):
            yield from _leaves(one, f"{key}.{name}")
    elif isinstance(value, list):
        yield key, len(value)
        for number, one in enumerate(value):
            yield from _leaves(one, f"{key}.{number}")
    else:
        yield key, value


def _digest_or_text(leaf: tuple[str, object]) -> list[object]:
    key, value = leaf
    if isinstance(value, str) and value.startswith("/"):
        if not Path(value).is_file():
            raise _NoKeyError(f"{value} is no file")
        return [key, sha256_of(Path(value)).sha256]
    return [key, value]


def _own_files(config: str) -> list[Path]:
    """The files of every `module:function` that a section names: the user's own networks and attacks."""
    if not config:
        return []
    found: list[Path] = []
    for _, value in _leaves(_section(config)):
        match = _OWN.fullmatch(value) if isinstance(value, str) else None
        if match:
            found += _module_files(match[0].split(":")[0].split(".")[0])
    return found


def _module_files(name: str) -> list[Path]:
    """The files of a top-level module, and what it may import next to it."""
    spec = find_spec(name)
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        raise _NoKeyError(f"no module {name}")
    places = spec.submodule_search_locations
    if places:
        return [path for place in places for path in Path(place).rglob("*.py")]
    return list(Path(str(spec.origin)).parent.glob("*.py"))
