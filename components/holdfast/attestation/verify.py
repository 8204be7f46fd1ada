"""`holdfast verify --trust`: bytes and signatures of a run, an artifact or a registered version, as one table."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from holdfast.artifacts.admission import foreign
from holdfast.artifacts.documents import Document, GateDecision, Verdict
from holdfast.artifacts.folder import DOCUMENT, Artifact, load_any
from holdfast.artifacts.inspect import Finding, artifacts_below, verify_chain
from holdfast.attestation.chain import Link, check_chain
from holdfast.attestation.trust import TrustPolicy
from holdfast.attestation.waivers import require_waivers
from holdfast.errors import ArtifactError, RefusedError


@dataclass(frozen=True)
class Signatures:
    """What was signed, and whose signatures count."""

    bundles: Mapping[str, Sequence[bytes]]
    trust: TrustPolicy
    now: datetime


def verify_folder(folder: Path, search: Path, signatures: Signatures | None = None) -> list[Finding]:
    """Every digest of the artifact in `folder`, or of all artifacts below it, back to the data; and every signature.

    Raises:
        ArtifactError: no artifact is there.
    """
    known, findings = _read(search)
    tops = [load_any(folder)] if (folder / DOCUMENT).exists() else _last(known.values())
    for top in tops:
        findings += verify_chain(top.folder, search)
    if signatures is not None:
        findings += verify_signatures([top.digest for top in tops], known.values(), signatures)
    return _each_once(findings)


def verify_signatures(tops: Iterable[str], artifacts: Iterable[Artifact[Any]], signatures: Signatures) -> list[Finding]:
    """Every statement that the chains from `tops` (digests) need; a detail begins with the kind of the artifact.

    And whether the policies of decisions that passed count.
    """
    known = list(artifacts)
    documents = {artifact.digest: artifact.document for artifact in known}
    found = [
        link
        for top in tops
        for link in check_chain(top, documents, signatures.bundles, signatures.trust, signatures.now).links
    ]
    more = (*_waivers(documents.values(), signatures), *_foreign(known, signatures.trust))
    return _each_once((*map(_finding, found), *more))


def _waivers(documents: Iterable[Document], signatures: Signatures) -> Iterator[Finding]:
    """The waivers that decisions rest on."""
    for decision in documents:
        if isinstance(decision, GateDecision) and decision.waivers:
            try:
                require_waivers(decision, signatures.bundles, signatures.trust, signatures.now, decision.name)
            except RefusedError as error:
                yield Finding("refused", "approver", str(error))
            else:
                shown = ", ".join(f"{one.check} by {one.owner} until {one.until}" for one in decision.waivers)
                yield Finding("ok", "approver", f"waived: {shown}")


def _foreign(artifacts: Iterable[Artifact[Any]], trust: TrustPolicy) -> Iterator[Finding]:
    for artifact in artifacts:
        if isinstance(artifact.document, GateDecision) and artifact.document.verdict is Verdict.PASS:
            wrong = foreign(artifact, trust.file.counted)
            if wrong is not None:
                yield Finding("refused", "gate", f"{artifact.folder}: {wrong}")


def _finding(link: Link) -> Finding:
    return Finding(link.state, link.role, f"{link.subject}: {link.detail}")


def _read(search: Path) -> tuple[dict[str, Artifact[Any]], list[Finding]]:
    known: dict[str, Artifact[Any]] = {}
    unreadable: list[Finding] = []
    for place in artifacts_below(search):
        try:
            artifact = load_any(place)
        except ArtifactError as error:
            unreadable.append(Finding("altered", "artifact", str(error)))
        else:
            known[artifact.digest] = artifact
    if not known and not unreadable:
        raise ArtifactError(f"{search}: expected artifacts, found none")
    return known, unreadable


def _last(artifacts: Iterable[Artifact[Any]]) -> list[Artifact[Any]]:
    """Those from which no other one was made."""
    every = list(artifacts)
    used = {digest for artifact in every for digest in artifact.document.inputs.values()}
    return [artifact for artifact in every if artifact.digest not in used]


def _each_once(findings: Iterable[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))
