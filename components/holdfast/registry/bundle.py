"""What a registered version holds, and the check of every byte of it when it comes back.

A *bundle* lies in the pyfunc folder (`data/bundle`): `model/` and `decision/` (artifacts), `replay.npz`, `attacks.npz`
(where the attack step kept adversarial rows), `reference.parquet`, `confidence.npz`, `schema.pbtxt`, `evidence/`, and
`bundle.json`, which pins them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdfast.artifacts import admission
from holdfast.artifacts.admission import NotPassed, Objection, OtherBytes, OtherPolicy
from holdfast.artifacts.documents import GateDecision, Model
from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, load_any, read_bounded, replace_file, sha256_of
from holdfast.artifacts.policies import PolicyList
from holdfast.attestation.demands import IGNORED, Demands, bundles_of
from holdfast.attestation.keys import Signer
from holdfast.attestation.model_files import SIGNATURE, sign_files
from holdfast.errors import ArtifactError, IntegrityError, RefusedError

DECISION = "holdfast.decision_digest"
"""Tag of a version: the gate's decision."""
PACKAGE = "holdfast.package_digest"
"""Tag of a version: every file of its folder in MLflow but the bundle, which has a pin of its own."""
RETRAIN_REQUEST = "holdfast.retrain_request"
"""Tag of a version that a monitor asked for: its request."""
PINS = ("holdfast.bundle_digest", "holdfast.model_digest", DECISION, PACKAGE)
"""Tags without which the bytes of a version could be any."""
BUNDLE, MANIFEST = "bundle", "bundle.json"
EVIDENCE = "evidence"
"""Where a bundle has the reports that the gate read."""
PACKAGED = f"data/{BUNDLE}"
"""Where MLflow's pyfunc format puts the bundle."""
DOWNLOADED = "registered_model_meta"
"""A file that MLflow adds to some downloads: the name and the version that were asked for."""
MAX_MANIFEST_BYTES = 2**20


@dataclass(frozen=True)
class Bundle:
    """A registered version on this machine, after its bytes were verified."""

    name: str
    version: int
    folder: Path
    model: Artifact[Model]
    decision: Artifact[GateDecision]
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of the version; empty for a bundle that came without."""

    def documents(self) -> list[Artifact[Any]]:
        """The model, the decision and the evidence; the snapshot and the champion are named in what was signed."""
        evidence = sorted(path.parent for path in (self.folder / EVIDENCE).glob(f"*/{DOCUMENT}"))
        return [self.model, self.decision, *(load_any(place) for place in evidence)]

    def path(self, name: str) -> Path:
        """The path of a file of the bundle, for example `replay.npz`.

        Raises:
            ArtifactError: the bundle holds no such file.
        """
        path = self.folder / name
        if not path.is_file():
            raise ArtifactError(f"{self.folder}: expected a file {name}, found none; register the model again")
        return path


def seal_bundle(folder: Path, signed_by: Signer | None = None, name: str = "") -> str:
    """Pins every file of `folder` in its `bundle.json`; returns the digest of that file.

    With a key the files are signed first, as those of the model `name`: `model.sig`, which is pinned, too.
    """
    pins = {
        path.relative_to(folder).as_posix(): sha256_of(path).model_dump()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }
    if signed_by is not None:
        files = {path: str(pin["sha256"]) for path, pin in pins.items()}
        replace_file(folder / SIGNATURE, sign_files(name, files, signed_by, datetime.now(UTC), IGNORED))
        pins[SIGNATURE] = sha256_of(folder / SIGNATURE).model_dump()
    data = json.dumps({"files": pins, "version": 1}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    replace_file(folder / MANIFEST, data)
    return hashlib.sha256(data).hexdigest()


def read_bundle(
    folder: Path,
    name: str,
    version: int,
    *,
    tags: Mapping[str, str] | None = None,
    demands: Demands | None = None,
    policies: PolicyList | None = None,
) -> Bundle:
    """The bundle in `folder` after every byte was hashed; with the version's `tags`, also against these.

    With `policies` the decision must be by one of these; with `demands` the signatures behind it must be there, too.

    Raises:
        IntegrityError: a file is altered, missing, or was added; or a digest is missing among the tags.
        RefusedError: the decision is not a pass, is about another model, or by a policy that does not count; or a
            signature that is demanded is missing.
    """
    promised = tags or {}
    missing = [] if tags is None else [name for name in PINS if not promised.get(name)]
    if missing:
        raise IntegrityError(
            f"{name} version {version}: expected the tag {missing[0]} that it was registered with, found none; "
            "register the model again"
        )
    pins = _check_files(folder, promised.get("holdfast.bundle_digest"))
    model = Ref(folder / "model", promised.get("holdfast.model_digest"))
    judged = admission.read(model, Ref(folder / "decision", promised.get(DECISION)))
    for part in (folder / "model", folder / "decision", *sorted((folder / EVIDENCE).glob("*"))):
        _refuse_unpinned(part)
    wrong = judged.objection(policies)
    if wrong is not None:
        raise RefusedError(f"{name} version {version}: {_text(wrong)}")
    if tags is not None and judged.model.document.name != name:
        raise RefusedError(
            f"{name} version {version}: expected a model of this name, found {judged.model.document.name}"
        )
    found = Bundle(name, version, folder, judged.model, judged.decision, promised)
    if demands is not None:
        demands.meet(judged.decision, found.documents(), bundles_of(folder, tags), version=version or None)
        demands.meet_files(folder, judged.model.document.name, pins)
    return found


def package_digest(package: Path) -> str:
    """SHA-256 over the path and the bytes of every file in a version's folder (`MLmodel`, `code/`, ...).

    Left out are the bundle, and the file in which MLflow notes for whom it downloaded.

    Raises:
        IntegrityError: one of them is no regular file.
    """
    bundle = package / PACKAGED
    paths = [path for path in package.rglob("*") if path.is_symlink() or not path.is_dir()]
    pins = {
        path.relative_to(package).as_posix(): sha256_of(path).sha256
        for path in paths
        if bundle not in path.parents and path != package / DOWNLOADED
    }
    return hashlib.sha256(json.dumps(pins, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_package(package: Path, name: str, version: int, tags: Mapping[str, str]) -> None:
    """Holds the downloaded folder of a version against its tag; where that is gone, `read_bundle` refuses.

    Raises:
        IntegrityError: a file is altered, missing, or was added.
    """
    promised = tags.get(PACKAGE)
    found = package_digest(package)
    if promised and found != promised:
        raise IntegrityError(
            f"{name} version {version}: expected the files with which it was registered ({PACKAGE} {promised[:12]}…), "
            f"found others ({found[:12]}…); MLmodel, or what it names, was altered in the store"
        )


def pins_of(bundle: Bundle) -> dict[str, str]:
    """Path -> SHA-256 of every file of a bundle that was read."""
    return _pins(bundle.folder, None)


def bundle_in(package: Path, name: str) -> Path:
    """The bundle's folder in a downloaded version of the model `name`.

    Raises:
        IntegrityError: there is none.
    """
    folder = package / PACKAGED
    if not folder.is_dir():
        raise IntegrityError(
            f"{name}: expected {PACKAGED} in the registered version, found none; was it made elsewhere?"
        )
    return folder


def _text(wrong: Objection) -> str:
    match wrong:
        case OtherBytes(given=given, judged=judged):
            return f"expected a decision about model {given[:12]}…, found one about {judged}"
        case NotPassed(verdict=verdict):
            return f"expected the verdict pass, found {verdict}"
        case OtherPolicy():
            return str(wrong)


def _check_files(folder: Path, digest: str | None) -> dict[str, str]:
    """Path -> SHA-256 of every file, after all were found to be as they were pinned."""
    pins = _pins(folder, digest)
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir() or not any(path.iterdir())]
    there = {path.relative_to(folder).as_posix() for path in paths}
    others = sorted((there - {MANIFEST}) ^ set(pins))
    if others:
        raise IntegrityError(f"{folder}: expected exactly the files of {MANIFEST}, found a difference at {others[0]}")
    for name, pin in pins.items():
        found = sha256_of(folder / name)
        if found.sha256 != pin:
            raise IntegrityError(
                f"{folder / name}: expected sha256 {pin[:12]}…, found {found.sha256[:12]}…; "
                "the file was altered after the model was registered"
            )
    return pins


def _refuse_unpinned(folder: Path) -> None:
    """An artifact's folder holds its document and files that this pins, and no other."""
    pinned = load_any(folder).document.files
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name != DOCUMENT and name not in pinned and (path.is_symlink() or not path.is_dir()):
            raise IntegrityError(f"{path}: expected only files that {folder / DOCUMENT} pins, found another one")


def _pins(folder: Path, digest: str | None) -> dict[str, str]:
    path = folder / MANIFEST
    found = sha256_of(path)
    if found.bytes > MAX_MANIFEST_BYTES or (digest is not None and found.sha256 != digest):
        raise IntegrityError(f"{path}: expected sha256 {digest}, found {found.sha256} ({found.bytes} bytes)")
    try:
        files = json.loads(read_bounded(path, found.bytes))["files"]
        return {str(name): str(pin["sha256"]) for name, pin in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise IntegrityError(f"{path}: expected the list of the bundle's files, found something else") from None
