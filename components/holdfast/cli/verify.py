"""`holdfast verify`: every digest, and with a trust policy every signature, as one table and one exit code."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.errors import HoldfastError, RefusedError
from holdfast.options import TRACKING, AsJson, Tracking, TrustFileOption
from holdfast.wording import printable_lines

if TYPE_CHECKING:
    from holdfast.artifacts.inspect import Finding
    from holdfast.attestation.verify import Signatures
    from holdfast.registry import Bundle

STEPS_FOLDER = "steps"
"""Where a run folder has its artifacts."""
REGISTERED = "models:/"
_OK, _WRONG = 0, 1


def verify(
    artifact: Annotated[
        str, typer.Argument(help="An artifact's or a run's folder, models:/NAME@ALIAS or models:/NAME/VERSION.")
    ],
    search: Annotated[Path | None, typer.Option(help="Where the inputs lie; the folder around when left out.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Exit code 0 also where inputs were not found.")
    ] = False,
    trust: TrustFileOption = None,
    attestations: Annotated[
        Path | None, typer.Option(help="Folder of signed statements; `attestations` in or near it when left out.")
    ] = None,
    released: Annotated[
        bool, typer.Option("--released", help="models:/ only: it must also be the newest release (with --trust).")
    ] = False,
    state: Annotated[
        Path | None, typer.Option(help="With --released: a file that remembers the newest release that was seen.")
    ] = None,
    tracking: Tracking = TRACKING,
    as_json: AsJson = False,
) -> None:
    """Check every digest of an artifact and of everything it was made from; with --trust also every signature.

    Exit code 1 where a file was altered or added, an input was not found and so not checked, or a signature that must
    be there is missing or does not count. It works offline, but for MLflow with models:/.
    """
    if released and (trust is None or not artifact.startswith(REGISTERED)):
        raise typer.BadParameter("expected only with models:/ and --trust", param_hint="--released")
    if artifact.startswith(REGISTERED):
        findings = _registered(artifact, tracking, trust, Serving(state) if released else None)
    else:
        findings = _findings(Path(artifact), search, trust, attestations)
    lines = [f"{finding.state:8} {finding.role:24} {finding.detail}" for finding in findings]
    count = Counter[str](finding.state for finding in findings)
    code, last = _conclusion(count, signed=trust is not None, allow_missing=allow_missing)
    listed = json.dumps([vars(finding) for finding in findings])
    typer.echo(listed if as_json else printable_lines("\n".join([*lines, last])))
    if code != _OK:
        raise typer.Exit(code)


def _conclusion(count: Counter[str], *, signed: bool, allow_missing: bool) -> tuple[int, str]:
    """The exit code and the last line."""
    wrong, missing = (
        {"altered or added": count["altered"] + count["added"], "refused": count["refused"]},
        count["missing"],
    )
    what = "artifacts, files and signatures" if signed else "artifacts and files"
    if any(wrong.values()) or (signed and missing):
        found = {**wrong, "missing": missing if signed else 0}
        return _WRONG, f"NOT VERIFIED: {', '.join(f'{number} {how}' for how, number in found.items() if number)}"
    if not missing:
        return _OK, f"verified: {count['ok']} {what}"
    if allow_missing:
        return _OK, f"verified: {count['ok']} {what}; {missing} inputs were not found and not checked"
    hint = "--search FOLDER names where they lie, --allow-missing goes without"
    return _WRONG, f"NOT VERIFIED: {missing} inputs were not found and not checked; {hint}"


def _findings(folder: Path, search: Path | None, trust: Path | None, attestations: Path | None) -> "list[Finding]":
    from holdfast.attestation.verify import verify_folder

    is_run = (folder / STEPS_FOLDER).is_dir()
    below = search or (folder if is_run else folder.resolve().parent)
    return verify_folder(folder, below, _signatures(trust, attestations, below))


def _signatures(trust: Path | None, attestations: Path | None, below: Path) -> "Signatures | None":
    """What was signed, from the folder that was named, or that lies in or next to the one of the artifacts."""
    if trust is None:
        return None
    from datetime import UTC, datetime

    from holdfast.attestation.store import ATTESTATIONS, read_all
    from holdfast.attestation.trust import read_trust
    from holdfast.attestation.verify import Signatures

    near = [below / ATTESTATIONS, below.resolve().parent / ATTESTATIONS]
    kept = attestations or next((place for place in near if place.is_dir()), near[0])
    return Signatures(read_all(kept), read_trust(trust), datetime.now(UTC))


@dataclass(frozen=True)
class Serving:
    """That a version is asked for to be served."""

    state: Path | None
    """Where the newest release that was seen is kept."""


def _registered(uri: str, tracking: str, trust: Path | None, serving: Serving | None) -> "list[Finding]":
    """A registered version: its bytes were hashed when it was fetched; then the signatures behind its decision."""
    from datetime import UTC, datetime

    from holdfast import registry
    from holdfast.artifacts.inspect import Finding
    from holdfast.attestation.demands import bundles_of
    from holdfast.attestation.trust import read_trust
    from holdfast.attestation.verify import Signatures, verify_signatures
    from holdfast.errors import RegistryError

    name, version = registry.named(uri)
    policy = None if trust is None else read_trust(trust)
    with registry.fetched(tracking, name, version, policies=None if policy is None else policy.file.counted) as bundle:
        if bundle is None:
            raise RegistryError(f"{uri}: expected a registered version, found none in {registry.public(tracking)}")
        about = f"{name} version {bundle.version}: model {bundle.model.digest[:16]}…, every byte as registered"
        findings = [Finding("ok", "version", about)]
        if policy is not None:
            signatures = Signatures(bundles_of(bundle.folder, bundle.tags), policy, datetime.now(UTC))
            findings += verify_signatures([bundle.decision.digest], bundle.documents(), signatures)
            findings += (
                _files(bundle, signatures)
                + _approvals(bundle, signatures)
                + ([] if serving is None else _release(bundle, signatures, tracking, serving))
            )
        return findings


def _files(bundle: "Bundle", signatures: "Signatures") -> "list[Finding]":
    """The signature of the version's files."""
    from holdfast import registry
    from holdfast.artifacts.inspect import Finding
    from holdfast.attestation.demands import Demands

    pins = registry.pins_of(bundle)
    try:
        Demands(signatures.trust, signatures.now).meet_files(bundle.folder, bundle.name, pins)
    except HoldfastError as error:
        return [Finding("refused", "gate", str(error))]
    return [Finding("ok", "gate", f"files of the version: {len(pins)}, as they were signed")]


def _approvals(bundle: "Bundle", signatures: "Signatures") -> "list[Finding]":
    """The approvals that the policy asks for."""
    from holdfast.artifacts.inspect import Finding
    from holdfast.attestation.demands import candidate
    from holdfast.attestation.people import objection

    one, require = candidate(bundle.decision, bundle.version), bundle.decision.document.require
    if not require.approvals:
        return []
    wrong = objection(signatures.bundles.get(one.model, ()), one, require, signatures.trust, signatures.now)
    if wrong is not None:
        return [Finding("missing", "approver", wrong)]
    return [Finding("ok", "approver", f"approved by {require.approvals} or more, as the policy asks")]


def _release(bundle: "Bundle", signatures: "Signatures", tracking: str, serving: Serving) -> "list[Finding]":
    """Whether the version is the newest release."""
    from holdfast import registry
    from holdfast.artifacts.inspect import Finding

    try:
        found = registry.require_released(
            tracking, bundle.name, bundle.model.digest, signatures.trust, signatures.now, serving.state
        )
    except RefusedError as error:
        return [Finding("refused", "release", str(error))]
    return [Finding("ok", "release", f"version {found.version}: sequence number {found.sequence}, the newest")]


COMMANDS = {"verify": verify}
"""What `holdfast` runs by these names."""
