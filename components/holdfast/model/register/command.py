"""`holdfast register`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.options import (
    TRACKING,
    Attestations,
    ModelRef,
    Out,
    SigningKey,
    SnapshotRef,
    Tracking,
    TrustFileOption,
    ref,
    step_command,
    write,
)

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact, Ref


@step_command
def register(
    model: ModelRef,
    decision: Annotated[str, typer.Option(help="Gate decision: FOLDER or FOLDER@DIGEST.")],
    snapshot: SnapshotRef,
    out: Out,
    evidence: "dict[str, Ref]",
    tracking: Tracking = TRACKING,
    policy: Annotated[
        str | None, typer.Option(help="The policy that must have decided: a name, a file, or JSON.")
    ] = None,
    trust: TrustFileOption = None,
    attestations: Attestations = None,
    key: SigningKey = None,
    version_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> "Artifact[Any]":
    """Register a model that passed in MLflow, with its evidence; twice makes one version."""
    from holdfast.attestation.demands import Demands
    from holdfast.attestation.keys import read_signer
    from holdfast.attestation.store import ATTESTATIONS
    from holdfast.model.register.step import Signed
    from holdfast.model.register.step import register as step

    artifact = step(
        ref(model),
        out,
        decision=ref(decision),
        snapshot=ref(snapshot),
        evidence=evidence,
        tracking=tracking,
        policy=policy,
        signed=Signed(
            Demands.of(trust),
            attestations or out.resolve().parent / ATTESTATIONS,
            None if key is None else read_signer(key),
        ),
    )
    if version_file is not None:
        write(version_file, str(artifact.document.model_version))
    return artifact


COMMANDS = {"register": register}
"""What `holdfast` runs by these names."""
