"""A store of bundles under the digests of their models: `STORE/sha256/DIGEST/`, what `storageUri` and `modelUri` name.

Each folder holds `bundle/`, as the registry has it, and `model-settings.json`, by which MLServer loads it. An address
that holds the digest can lead to no other bytes: a bundle comes in only after every byte was checked, and a server
checks them again.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast import registry
from holdfast.artifacts.documents import InputSpec, Model
from holdfast.artifacts.folder import Artifact, Ref, read_bounded, replace_file
from holdfast.attestation.demands import Demands
from holdfast.errors import IntegrityError, RefusedError
from holdfast.serving.predictor.settings import Served, model_settings

BUNDLE, SETTINGS = "bundle", "model-settings.json"
_MAX_BYTES = 2**20


@dataclass(frozen=True)
class StoredBundle:
    """A bundle in a store."""

    name: str
    version: int
    folder: Path
    model: Artifact[Model]

    @property
    def digest(self) -> str:
        """Of the model."""
        return self.model.digest

    @property
    def shape(self) -> tuple[InputSpec, int]:
        """What one row is, and the number of classes."""
        return self.model.document.input, len(self.model.document.classes)

    def served(self, name: str = "", trust: Path | None = None) -> Served:
        """What a server is to serve, under another name where one is given."""
        refs = (Ref(self.folder / BUNDLE / "model", self.digest), Ref(self.folder / BUNDLE / "decision"))
        return Served(name or self.name, self.version, *refs, trust=trust)


def place_of(store: Path, digest: str) -> Path:
    """Where the store has the model of this digest."""
    return store / "sha256" / digest


def put(tracking: str, name: str, version: int | str, store: Path, demands: Demands | None = None) -> StoredBundle:
    """Copies a registered version (its number or an alias) to the store; twice changes nothing.

    Raises:
        RefusedError: there is no such version, or it must not be served.
        IntegrityError: bytes are not those that were registered, or those in the store are others.
        RegistryError: MLflow cannot be reached.
    """
    parent = store / "sha256"
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".incoming.", dir=parent))
    try:
        found = registry.fetch(tracking, name, version, work / BUNDLE, demands)
        if found is None:
            raise RefusedError(
                f"{name} {version}: expected a registered version, found none in {registry.public(tracking)}"
            )
        stored = StoredBundle(name, found.version, place_of(store, found.model.digest), found.model)
        inside = replace(stored, folder=Path()).served()
        settings = model_settings(inside, *stored.shape, absolute=False)
        replace_file(work / SETTINGS, json.dumps(settings, indent=1).encode())
        return _settled(work, stored)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _settled(work: Path, stored: StoredBundle) -> StoredBundle:
    """Moves what came in to its place, in one step; what is there already must be the same."""
    for folder in (work, *(path for path in work.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # servers read it as other users
    try:
        work.rename(stored.folder)
    except OSError:
        if not stored.folder.is_dir():
            raise
        here = read(stored.folder).digest
        if here != stored.digest:
            raise IntegrityError(f"{stored.folder}: expected the model of this digest, found {here}") from None
    return replace(stored, model=read(stored.folder).model)


def read(folder: Path) -> StoredBundle:
    """The bundle of one folder of a store, after every byte was checked.

    Raises:
        IntegrityError, ArtifactError: a file is altered, missing, or was added.
        RefusedError: the decision is not a pass about these bytes.
    """
    path = folder / SETTINGS
    try:
        found = json.loads(read_bounded(path, _MAX_BYTES, "settings of a model"))
        name, version = str(found["name"]), int(found["parameters"]["version"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise IntegrityError(f"{path}: expected the name and version of a model, found something else") from None
    bundle = registry.read_bundle(folder / BUNDLE, name, version)
    return StoredBundle(name, version, folder, bundle.model)
