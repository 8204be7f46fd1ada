"""Signing: an artifact that a step has just written, and the gate's verdict."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from holdfast.artifacts.documents import Document, GateDecision, Verdict
from holdfast.artifacts.folder import Artifact
from holdfast.attestation import store
from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.keys import Signer, read_signer
from holdfast.attestation.predicates import Occasion, statement_of, verdict_statement
from holdfast.attestation.statement import Statement
from holdfast.attestation.trust import ROLES
from holdfast.errors import InputError
from holdfast.steps import Role, writer

TRUST = "trust.yaml"
"""The trust policy in a folder of keys."""


def statements(document: Document, digest: str, occasion: Occasion) -> list[Statement]:
    """What the step that wrote `document` signs: its statement and, where the gate passed, the verdict on the model."""
    found = [statement_of(document, digest, occasion)]
    if isinstance(document, GateDecision) and document.verdict is Verdict.PASS:
        found.append(verdict_statement(document, digest, occasion))
    return found


def attest(artifact: Artifact[Any], signer: Signer, folder: Path, *, run: str, at: datetime) -> list[Path]:
    """Signs the statements of the step about `artifact` and keeps the bundles in `folder`; returns their files."""
    found = statements(artifact.document, artifact.digest, Occasion(run, at))
    return [store.keep(folder, sign_payload(statement.payload(), signer)) for statement in found]


def read_keys(folder: Path) -> dict[Role, Signer]:
    """The private keys in a folder: `ROLE.pem` for each role whose key is held here.

    Raises:
        InputError: none is there, or one is no key.
    """
    places = {role: folder / f"{role}.pem" for role in ROLES}
    found: dict[Role, Signer] = {role: read_signer(str(path)) for role, path in places.items() if path.exists()}
    if not found:
        raise InputError(f"{folder}: expected keys such as gate.pem, found none; `holdfast keys new --out {folder}`")
    return found


def signer_for(document: Document, keys: Mapping[Role, Signer]) -> Signer | None:
    """The key of the role that signs such documents; None: it is not held here."""
    return keys.get(writer(type(document)).signed_by)
