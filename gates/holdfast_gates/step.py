"""The gate step: reads the model, its snapshot and the evidence, writes the decision."""

from collections.abc import Mapping
from pathlib import Path

from holdfast.artifacts.documents import GateDecision, Model, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.artifacts.policies import POLICY
from holdfast.errors import WorkloadError
from holdfast_gates.confirm import pages
from holdfast_gates.decide import KINDS, Evidence, Judged, decide
from holdfast_gates.policy import Policy
from holdfast_gates.waivers import SignedWaivers, apply


def gate(
    policy: Policy,
    out: Path,
    *,
    model: Ref,
    snapshot: Ref,
    evidence: Mapping[str, Ref],
    waivers: SignedWaivers | None = None,
) -> Artifact[GateDecision]:
    """Judges `model` by `policy`; writes the decision, with `decision.md` and `junit.xml` for people and test runners.

    A blocked release is a decision, not a failure: the step succeeds with every verdict. `waivers` is what people
    signed; the decision names those that count, and why others do not.

    Raises:
        ArtifactError: an artifact that was given is incomplete, altered, or of another kind.
    """
    trained, data = load(model, Model), load(snapshot, Snapshot)
    judged = Judged(trained.document, trained.digest, data.document, data.digest)
    read = {role: _read(role, ref) for role, ref in evidence.items()}
    decision = decide(policy, judged, read)
    if waivers is not None:
        decision = apply(decision, waivers.read(trained.digest, policy.require))
    return save(out, decision, {**pages(decision, policy, read), POLICY: policy.to_json().encode() + b"\n"})


def _read(role: str, ref: Ref) -> Evidence:
    if role not in KINDS:
        raise WorkloadError(f"evidence {role!r}: expected one of {', '.join(KINDS)}")
    artifact = load(ref, KINDS[role])
    return Evidence(artifact.document, artifact.digest)
