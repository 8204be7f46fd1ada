"""`holdfast gate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import Attestations, ModelRef, Out, SnapshotRef, TrustFileOption, ref, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.documents import GateDecision
    from holdfast.artifacts.folder import Artifact, Ref
    from holdfast_gates.waivers import SignedWaivers

CODES = {"pass": 0, "fail": 3, "inconclusive": 4}
"""Exit code by verdict."""


@step_command
def gate(
    model: ModelRef,
    snapshot: SnapshotRef,
    out: Out,
    evidence: "dict[str, Ref]",
    policy: Annotated[str, typer.Option(help="Name in gates/policies, a file, or JSON.")] = "default",
    enforce: Annotated[bool, typer.Option(help="Exit with 3 (fail) or 4 (inconclusive).")] = False,
    waivers: Annotated[
        Path | None, typer.Option(help="Folder of waivers that people signed (`holdfast waive`); needs --trust.")
    ] = None,
    trust: TrustFileOption = None,
    attestations: Attestations = None,
) -> "tuple[Artifact[GateDecision], int]":
    """Judge a model by its evidence under a policy; missing or stale evidence is not a pass."""
    from holdfast_gates.policy import find
    from holdfast_gates.step import gate as step

    signed = _signed(waivers, trust)
    artifact = step(find(policy), out, model=ref(model), snapshot=ref(snapshot), evidence=evidence, waivers=signed)
    if signed is not None:
        _hand_on(artifact, signed, attestations or out.resolve().parent / "attestations")
    return artifact, CODES[artifact.document.verdict] if enforce else 0


def _signed(waivers: Path | None, trust: Path | None) -> "SignedWaivers | None":
    """What people signed; None: nothing was named."""
    if waivers is None:
        return None
    if trust is None:
        raise typer.BadParameter("expected --trust with it, a trust policy", param_hint="--waivers")
    from datetime import UTC, datetime

    from holdfast.attestation.store import read_all
    from holdfast.attestation.trust import read_trust
    from holdfast_gates.waivers import SignedWaivers

    return SignedWaivers(read_all(waivers), read_trust(trust), datetime.now(UTC))


def _hand_on(artifact: "Artifact[GateDecision]", signed: "SignedWaivers", folder: Path) -> None:
    """Keeps what people signed about the model next to the other statements: whoever takes it in looks at it again."""
    from holdfast.attestation.store import keep

    if artifact.document.waivers:
        for bundle in signed.bundles.get(artifact.document.inputs["model"], ()):
            keep(folder, bundle)


COMMANDS = {"gate": gate}
"""What `holdfast` runs by these names."""
