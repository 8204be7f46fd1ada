"""A registered version in miniature: its bundle's folder and its tags, as a store holds them."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from holdfast import registry
from holdfast.artifacts.folder import DOCUMENT, load_any, sha256_of
from holdfast.attestation import store
from holdfast.attestation.demands import Demands
from holdfast.attestation.keys import PrivateKey
from holdfast.attestation.release import releases, require_newest
from tests.attestation.chains import NOW, Made, make_keys, make_run, sign_run, trust_in
from tests.gates.conftest import MAKERS

Tags = dict[str, str]


@dataclass
class StoredVersion:
    """What whoever can write to the store can change: every file, every tag, and under which name it is asked for."""

    folder: Path
    """Of its bundle."""
    tags: Tags
    name: str = "digits"
    released: tuple[bytes, ...] = ()
    """The release statements in the tags of all versions."""
    seen: Path | None = None
    """What the reader remembers of the releases that it saw."""

    @property
    def package(self) -> Path:
        """The folder that MLflow loads, with the bundle in it."""
        return self.folder.parents[1]

    def copy(self, into: Path) -> "StoredVersion":
        shutil.copytree(self.package, into, symlinks=True)
        return StoredVersion(into / registry.PACKAGED, dict(self.tags), self.name, self.released, self.seen)

    def taken_in(self, demands: Demands) -> registry.Bundle:
        """As servers and rollouts take it in, with its release; refused: an expected error."""
        registry.check_package(self.package, self.name, 1, self.tags)
        found = registry.read_bundle(self.folder, self.name, 1, tags=self.tags, demands=demands)
        if demands.trust is not None and self.released:
            known = releases(self.released, self.name, demands.trust, demands.now)
            require_newest(known, found.model.digest, self.name, self.seen)
        return found

    def bundles(self) -> dict[str, list[bytes]]:
        return store.read_all(self.folder / store.ATTESTATIONS)

    def put_bundles(self, bundles: Mapping[str, list[bytes]]) -> None:
        shutil.rmtree(self.folder / store.ATTESTATIONS, ignore_errors=True)
        store.copy_of({key: found for key, found in bundles.items() if found}, self.folder / store.ATTESTATIONS)

    def seal_again(self) -> None:
        """Computes every digest again, from the files up to the tags: what needs no key."""
        model = _pinned_again(self.folder / "model", {})
        changed = {role: _pinned_again(place, self._about(place, model)) for role, place in self._evidence()}
        inputs = {"model": model, **changed}
        decision = _pinned_again(self.folder / "decision", inputs)
        bundle = _listed_again(self.folder)
        package = registry.package_digest(self.package)
        self.tags |= dict(zip(registry.PINS, (bundle, model, decision, package), strict=True))

    def _evidence(self) -> list[tuple[str, Path]]:
        return [(place.name, place) for place in sorted((self.folder / registry.EVIDENCE).iterdir()) if place.is_dir()]

    def _about(self, place: Path, model: str) -> dict[str, str]:
        return {"model": model} if "model" in load_any(place).document.inputs else {}


def store_version(made: Made, package: Path, signer: PrivateKey) -> StoredVersion:
    """What the register step leaves of a run in the folder `package`."""
    folder = package / registry.PACKAGED
    parts = {"model": made.artifacts["train"], "decision": made.artifacts["gate"]}
    parts |= {f"{registry.EVIDENCE}/{role}": made.artifacts[role] for role in MAKERS}
    for place, artifact in parts.items():
        shutil.copytree(artifact.folder, folder / place)
    about = {artifact.digest for artifact in made.artifacts.values()}
    store.copy_of({key: found for key, found in made.bundles.items() if key in about}, folder / store.ATTESTATIONS)
    for name in ("replay.npz", "confidence.npz", "schema.pbtxt"):
        (folder / name).write_bytes(name.encode() * 20)
    digests = (registry.seal_bundle(folder, signer, "digits"), parts["model"].digest, parts["decision"].digest)
    (package / "MLmodel").write_text(f"flavors: {{python_function: {{}}}}\nmodel_uuid: {digests[0][:32]}\n")
    tags = dict(zip(registry.PINS, (*digests, registry.package_digest(package)), strict=True))
    return StoredVersion(folder, tags)


def register_signed(tracking: str, folder: Path) -> None:
    """Registers two signed versions of `digits`, by the keys in `folder/keys`; the second passed an hour later."""
    keys = make_keys(folder / "keys")
    for seed in (0, 1):
        run = folder / f"run{seed}"
        run.mkdir()
        artifacts = make_run(run, seed=seed)
        sign_run(run, artifacts, keys, NOW - timedelta(hours=2 - seed))
        made = Made(run, artifacts, keys, trust_in(folder / "keys"))
        version = store_version(made, run / "package", keys["gate"])
        (run / "reports").mkdir()
        tags = {**version.tags, "holdfast.verdict": "pass"}
        entry = registry.Entry("digits", tags["holdfast.model_digest"], tags, description="toy", about="toy")
        registry.register(tracking, entry, package=run / "package", reports=run / "reports")


def _pinned_again(folder: Path, inputs: Mapping[str, str]) -> str:
    """Writes the document of an artifact with pins of its files as they are; returns its digest."""
    value: dict[str, Any] = json.loads((folder / DOCUMENT).read_bytes())
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != DOCUMENT]
    value["files"] = {path.relative_to(folder).as_posix(): sha256_of(path).model_dump() for path in files}
    value["inputs"] |= {role: digest for role, digest in inputs.items() if role in value["inputs"]}
    data = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    (folder / DOCUMENT).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _listed_again(folder: Path) -> str:
    (folder / registry.MANIFEST).unlink(missing_ok=True)
    return registry.seal_bundle(folder)
