"""A run that a monitor asked for: the request is about this workload, signed, and quarantined rows stay out."""

from datetime import UTC, datetime
from pathlib import Path

from holdfast.artifacts.documents import RetrainRequest
from holdfast.artifacts.folder import Artifact, Ref, load
from holdfast.attestation.chain import check_chain
from holdfast.attestation.store import ATTESTATIONS, read_all
from holdfast.attestation.trust import read_trust
from holdfast.errors import RefusedError, WorkloadError
from holdfast.workload.schema import Workload


def answered(
    because: Ref, workload: Workload, reviews: Path | None = None, trust: Path | None = None
) -> Artifact[RetrainRequest]:
    """The request, after it was found to be one that a run on this workload may answer.

    Args:
        because: the request; what was signed about it lies in `attestations` next to it.
        workload: as read.
        reviews: the folder of reviews of a workload that names none.
        trust: a trust policy: whose signature the request must have; None: no one's.

    Raises:
        WorkloadError: it is about another workload, or nothing keeps rows in quarantine out.
        RefusedError: it has no signature that counts.
        ArtifactError: it is none, or was altered.
    """
    found = load(because, RetrainRequest)
    if found.document.name != workload.name:
        raise WorkloadError(
            f"--because {because.folder}: expected a request about {workload.name}, found {found.document.name}"
        )
    if workload.data.review is None and reviews is None:
        raise WorkloadError(
            f"{workload.name}: expected data.review with --because: a retraining that a monitor asked for leaves out "
            "what is in quarantine, found none"
        )
    if trust is not None:
        _require_signed(found, trust)
    return found


def _require_signed(found: Artifact[RetrainRequest], trust: Path) -> None:
    """The request itself; what its report was made from was the monitor's to check."""
    policy = read_trust(trust)
    if not policy.file.signs:
        return
    bundles = read_all(found.folder.resolve().parent / ATTESTATIONS)
    first = check_chain(found.digest, {found.digest: found.document}, bundles, policy, datetime.now(UTC)).links[0]
    if first.state != "ok":
        raise RefusedError(f"{found.folder}: {first.detail}")
