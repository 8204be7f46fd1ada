"""`holdfast register`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import (
    TRACKING,
    AsJson,
    DigestFile,
    ModelRef,
    Out,
    SnapshotRef,
    Tracking,
    VerdictFile,
    finish,
    ref,
    with_evidence,
    write,
)

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Ref


@with_evidence
def register(
    model: ModelRef,
    decision: Annotated[str, typer.Option(help="Gate decision: FOLDER or FOLDER@DIGEST.")],
    snapshot: SnapshotRef,
    out: Out,
    evidence: "dict[str, Ref]",
    tracking: Tracking = TRACKING,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    version_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Register a model that passed in MLflow, with its evidence; twice makes one version."""
    from holdfast.model.register.step import register as step

    artifact = step(
        ref(model),
        out,
        decision=ref(decision),
        snapshot=ref(snapshot),
        evidence=evidence,
        tracking=tracking,
    )
    if version_file is not None:
        write(version_file, str(artifact.document.model_version))
    finish(artifact, digest_file, verdict_file, as_json)


COMMANDS = {"register": register}
"""What `holdfast` runs by these names."""
