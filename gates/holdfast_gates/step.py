"""The gate step: reads the model, its snapshot and the evidence, writes the decision."""

from collections.abc import Mapping
from pathlib import Path

from holdfast.artifacts.documents import GateDecision, Model, RobustnessReport, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.errors import WorkloadError
from holdfast_gates.decide import KINDS, Evidence, Judged, decide
from holdfast_gates.policy import Policy
from holdfast_gates.report import to_junit, to_markdown


def gate(
    policy: Policy, out: Path, *, model: Ref, snapshot: Ref, evidence: Mapping[str, Ref]
) -> Artifact[GateDecision]:
    """Judges `model` by `policy`; writes the decision, with `decision.md` and `junit.xml` for people and test runners.

    A blocked release is a decision, not a failure: the step succeeds with every verdict.

    Raises:
        ArtifactError: an artifact that was given is incomplete, altered, or of another kind.
    """
    trained, data = load(model, Model), load(snapshot, Snapshot)
    judged = Judged(trained.document, trained.digest, data.document, data.digest)
    read = {role: _read(role, ref) for role, ref in evidence.items()}
    decision = decide(policy, judged, read)
    operating = next(
        (e.document.operating_point for e in read.values() if isinstance(e.document, RobustnessReport)), None
    )
    return save(
        out,
        decision,
        {
            "decision.md": to_markdown(decision, policy, operating).encode(),
            "junit.xml": to_junit(decision),
            "policy.json": policy.to_json().encode() + b"\n",
        },
    )


def _read(role: str, ref: Ref) -> Evidence:
    if role not in KINDS:
        raise WorkloadError(f"evidence {role!r}: expected one of {', '.join(KINDS)}")
    artifact = load(ref, KINDS[role])
    return Evidence(artifact.document, artifact.digest)
