"""Which version is the one to serve: the release statement with the highest sequence number.

Whoever may move an alias could point it at an older version that also passed. A release statement is signed by the role
release when a version is promoted, or when people decide to go back; its sequence number only grows, and a reader
remembers the highest one that it saw.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from holdfast.artifacts.folder import read_bounded, replace_file
from holdfast.attestation.predicates import Occasion
from holdfast.attestation.statement import RELEASE, Statement, about, stamp
from holdfast.attestation.trust import TrustPolicy
from holdfast.errors import RefusedError

MAX_STATE_BYTES = 2**20


@dataclass(frozen=True)
class Release:
    """A version that was released, as its statement claims."""

    sequence: int
    model: str
    """Digest of the model artifact."""
    version: int


def release_statement(name: str, release: Release, occasion: Occasion, supersedes: str | None = None) -> Statement:
    """in-toto's release v0.1 about the model; `supersedes` is the digest of the model that served before."""
    predicate: dict[str, Any] = {
        "purl": f"pkg:mlflow/{name}@{release.version}",
        "releaseId": str(release.sequence),
        "sequence": release.sequence,
        "timeCreated": stamp(occasion.at),
    }
    if supersedes is not None:
        predicate["supersedes"] = {"digest": {"sha256": supersedes}}
    return about(f"model/{name}", release.model, RELEASE, predicate)


def releases(bundles: Iterable[bytes], name: str, trust: TrustPolicy, now: datetime) -> list[Release]:
    """The releases of the model `name` that as many keys signed as the role asks for, the highest number first."""
    signers: dict[Release, set[str]] = {}
    for one in trust.accepted(bundles, now)[0]:
        predicate: Any = one.statement.predicate
        sequence, purl = predicate.get("sequence"), str(predicate.get("purl", ""))
        kind, at, version = purl.rpartition("@")
        ours = one.statement.predicateType == RELEASE and kind == f"pkg:mlflow/{name}" and version.isdecimal()
        if ours and at and isinstance(sequence, int) and not isinstance(sequence, bool) and sequence > 0:
            signers.setdefault(Release(sequence, one.statement.digest, int(version)), set()).add(one.signer)
    config = trust.roles.get("release")
    found = [release for release, by in signers.items() if config is not None and len(by) >= config.threshold]
    return sorted(found, key=lambda release: -release.sequence)


def require_newest(found: list[Release], model: str, name: str, state: Path | None = None) -> Release:
    """The release of `model`, after no other one was found to be newer.

    With a `state` file, not an older one than the newest that was ever seen there; it is then brought up to date.

    Raises:
        RefusedError: the model was not released, or another one was released after it.
        ArtifactError: the state cannot be read.
    """
    ours = next((release for release in found if release.model == model), None)
    if ours is None:
        raise RefusedError(
            f"{name}: expected a release statement about model {model[:12]}… that enough keys signed, found none"
        )
    seen = _seen(state)
    newest = max([found[0].sequence, seen.get(name, 0)])
    if ours.sequence < newest:
        raise RefusedError(
            f"{name}: expected the release with the sequence number {newest}, found {ours.sequence} (version "
            f"{ours.version}); to go back to it, release it again"
        )
    if state is not None and seen.get(name) != newest:
        replace_file(state, json.dumps({**seen, name: newest}, sort_keys=True).encode())
    return ours


def _seen(state: Path | None) -> dict[str, int]:
    """Name -> the highest sequence number that was seen."""
    if state is None or not state.exists():
        return {}
    try:
        value = json.loads(read_bounded(state, MAX_STATE_BYTES, "the releases that were seen"))
        return {str(name): int(sequence) for name, sequence in value.items()}
    except (ValueError, AttributeError, TypeError):
        raise RefusedError(f"{state}: expected the releases that were seen, found something else") from None
