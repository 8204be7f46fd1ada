"""Approvals of the versions of a model: signed here, kept as tags of the version, shown on its page in MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from holdfast.artifacts.documents import Requirements
from holdfast.attestation.demands import TAG, Demands, candidate
from holdfast.attestation.envelope import read_bundle, sign_payload
from holdfast.attestation.keys import Signer
from holdfast.attestation.people import (
    Approval,
    JudgedVersion,
    SignerWords,
    approval_statement,
    approvals,
    parse_approval,
)
from holdfast.attestation.statement import parse_statement
from holdfast.attestation.trust import TrustPolicy
from holdfast.errors import HoldfastError, InputError, RefusedError
from holdfast.registry.bundle import DECISION, Bundle
from holdfast.registry.client import connected
from holdfast.registry.entry import shorten
from holdfast.registry.notes import MAX_VALUE
from holdfast.registry.version import Version, fetched, tag, versions
from holdfast.wording import markdown_text

APPROVAL_TAG = f"{TAG}approval."
"""Begins the tag with an approval; its end is the start of the key's fingerprint, so a key approves once."""
APPROVED_BY = "holdfast.approved_by"
"""Tag for people: who approved the version; an index, no authority."""
MAX_BUNDLE = 60_000
"""Characters that every database of MLflow holds in a version's tag (older ones: 5000); an identity's has 9,000."""
_SHOWN = "Approved by:"
"""Begins the part of the version's page that names them."""


@dataclass(frozen=True)
class ListedApproval:
    """An approval as MLflow has it."""

    version: int
    approver: str
    reason: str
    at: str
    """UTC, as the signer claims."""
    key: str
    """Fingerprint; empty: not known without a trust policy."""
    state: str
    """`signed`, `not checked`, or why it does not count."""


@dataclass(frozen=True)
class Approved:
    """What was signed."""

    name: str
    version: int
    model: str
    """Digest."""
    by: str
    bundle: bytes


def approve(tracking: str, name: str, version: int, words: SignerWords, signer: Signer, demands: Demands) -> Approved:
    """Signs that a person wants version `version` to serve, after it was fetched and everything else was found to hold.

    Raises:
        RefusedError: there is no such version, it would be refused with every approval, or this one would not count.
        InputError: a name or a reason that is empty or too long.
        RegistryError: MLflow cannot be reached.
    """
    with fetched(tracking, name, version, demands.before_approval()) as bundle:
        if bundle is None:
            raise RefusedError(f"{name} version {version}: expected a registered version, found none")
        one = candidate(bundle.decision, bundle.version)
        made = sign_payload(approval_statement(one, words, demands.now).payload(), signer)
        _require_it_counts(made, one, bundle, demands)
    if len(made) > MAX_BUNDLE:
        raise InputError(f"--reason: expected at most what a tag of MLflow holds, found {len(made)} bytes; shorten it")
    tag(tracking, name, version, f"{APPROVAL_TAG}{signer.fingerprint[:16]}", made.decode())
    _show(tracking, name, version)
    return Approved(name, version, one.model, words.by, made)


def list_approvals(
    tracking: str, name: str, version: int | None = None, trust: TrustPolicy | None = None, now: datetime | None = None
) -> list[ListedApproval]:
    """The approvals of a version, of all when left out, oldest version first; with a trust policy, which of them count.

    What the policy of a version asks besides is not known here; `holdfast verify models:/NAME/VERSION` asks for it.
    """
    known = [one for one in versions(tracking, name) if version in (None, one.number)]
    return [row for one in known for row in _of(one, name, trust, now)]


def _of(version: Version, name: str, trust: TrustPolicy | None, now: datetime | None) -> list[ListedApproval]:
    one = JudgedVersion(name, version.tags.get("holdfast.model_digest", ""), version.tags.get(DECISION, ""))
    return [
        _row(version.number, approval, *_state(text, one, trust, now)) for text, approval in _approvals(version.tags)
    ]


def _row(version: int, approval: Approval, key: str, state: str) -> ListedApproval:
    return ListedApproval(version, approval.approver, approval.reason, approval.timeCreated, key, state)


def _state(text: bytes, one: JudgedVersion, trust: TrustPolicy | None, now: datetime | None) -> tuple[str, str]:
    """Fingerprint of the key, and whether the approval counts."""
    if trust is None or now is None:
        return "", "not checked"
    signed, refused = trust.accepted((text,), now)
    found = approvals(signed, one, Requirements(), trust)
    if not found:
        return "", (refused or ["it is about another model"])[0].removeprefix("bundle 1: ")
    return found[0].signer, found[0].refused or "signed"


def _approvals(tags: Mapping[str, str]) -> list[tuple[bytes, Approval]]:
    """The approvals in a version's tags, not verified; what is none is left out."""
    found = []
    for key, value in sorted(tags.items()):
        approval = _parsed(value.encode()) if key.startswith(APPROVAL_TAG) else None
        if approval is not None:
            found.append((value.encode(), approval))
    return sorted(found, key=lambda pair: pair[1].timeCreated)


def _parsed(text: bytes) -> Approval | None:
    try:
        return parse_approval(parse_statement(read_bundle(text, "a bundle").payload, "a bundle"))
    except HoldfastError:
        return None


def _require_it_counts(made: bytes, one: JudgedVersion, bundle: Bundle, demands: Demands) -> None:
    """Refuses, before anything is stored, an approval that whoever demands it would not count."""
    trust = demands.signatures
    if trust is None:
        return
    signed = trust.accept(made, demands.now, "--key")
    found = approvals((signed,), one, bundle.decision.document.require, trust)
    if found[0].refused:
        raise RefusedError(f"{one.name} version {one.version}: it would not count: {found[0].refused}")


def _show(tracking: str, name: str, version: int) -> None:
    """Names everyone who approved on the version's page and in a tag."""
    now = next(one for one in versions(tracking, name) if one.number == version)
    found = [approval for _, approval in _approvals(now.tags)]
    people = ", ".join(markdown_text(approval.approver) for approval in found)
    lines = [f"- {markdown_text(one.approver)}, {one.timeCreated}: {markdown_text(one.reason)}" for one in found]
    with connected(tracking) as client:
        client.set_model_version_tag(name, str(version), APPROVED_BY, people[:MAX_VALUE])
        text = str(client.get_model_version(name, str(version)).description or "")
        client.update_model_version(name, str(version), shorten(_with(text, "\n".join([_SHOWN, *lines]))))


def _with(description: str, shown: str) -> str:
    """The page with this part after its first one, which lists show."""
    first, *rest = [part for part in description.split("\n\n") if not part.startswith(_SHOWN)] or [""]
    return "\n\n".join([first, shown, *rest])
