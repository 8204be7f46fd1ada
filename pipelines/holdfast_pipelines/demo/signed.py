"""The signatures of the demo: its own keys, the chain behind an act, and a model that was altered in the store."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from holdfast.artifacts.documents import Document, GateDecision, Model
from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, load, seal
from holdfast.attestation.keys import make_key
from holdfast.attestation.sign import TRUST
from holdfast.attestation.store import ATTESTATIONS, read_all
from holdfast.attestation.trust import ROLES, read_trust, starter
from holdfast.attestation.verify import Signatures, verify_folder
from holdfast.errors import RefusedError
from holdfast.serving.predictor.admission import admit
from holdfast.steps import evidence
from holdfast_pipelines.folder import place_of

ACCEPTED = "accepted"
WEIGHTS = "weights.safetensors"
D = TypeVar("D", bound=Document)


def make_keys(folder: Path) -> Path:
    """A key for each role, and the trust policy over them, in a folder that is new."""
    folder.mkdir(parents=True)
    for role in ROLES:
        make_key(folder / f"{role}.pem")
    (folder / TRUST).write_text(starter({role: f"{role}.pub" for role in ROLES}))
    return folder


def signatures(run: Path, trust: Path) -> dict[str, int]:
    """How many statements the chain behind a run's artifacts needs, and how many of them are there and count."""
    signed = Signatures(read_all(run / ATTESTATIONS), read_trust(trust), datetime.now(UTC))
    found = [one for one in verify_folder(run, run, signed) if one.role in ROLES]
    return {"needed": len(found), "verified": sum(one.state == "ok" for one in found)}


def tamper(run: Path, into: Path) -> Path:
    """A registered version of what `run` made, with its weights set to zero and every digest computed again.

    That is what whoever may write to the store can do; the bundles are copied, for nothing better can be made.
    """
    copy_version(run, into)
    _zero(into / "model" / WEIGHTS)
    model = _sealed_again(load(into / "model", Model), {})
    _sealed_again(load(into / "decision", GateDecision), {"model": model.digest})
    return into


def copy_version(run: Path, into: Path) -> Path:
    """A registered version of what `run` made, as a server reads it, with its signatures."""
    shutil.copytree(run / ATTESTATIONS, into / ATTESTATIONS)
    for role, step in evidence().items():
        if (found := place_of(run, step.document)).exists():
            shutil.copytree(found, into / "evidence" / role)
    shutil.copytree(place_of(run, Model), into / "model")
    shutil.copytree(place_of(run, GateDecision), into / "decision")
    return into


def served(version: Path, trust: Path | None) -> str:
    """What a server does with a registered version: `ACCEPTED`, or why it refuses."""
    try:
        admit(Ref(version / "model"), Ref(version / "decision"), trust)
    except RefusedError as error:
        return str(error).removeprefix(f"{version}/")
    return ACCEPTED


def _zero(path: Path) -> None:
    """Sets all tensors of a safetensors file to zero; its header stays."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:start] + bytes(len(data) - start))


def _sealed_again(artifact: Artifact[D], inputs: Mapping[str, str]) -> Artifact[D]:
    """The artifact with pins of its files as they are now, and with other inputs."""
    document = artifact.document.model_copy(update={"inputs": {**artifact.document.inputs, **inputs}})
    (artifact.folder / DOCUMENT).unlink()
    return seal(artifact.folder, document)
