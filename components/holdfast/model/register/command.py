"""`holdfast register`."""

from pathlib import Path
from typing import Annotated

import typer

from holdfast.options import (
    TRACKING,
    AsJson,
    DigestFile,
    Evidence,
    ModelRef,
    Out,
    SnapshotRef,
    Tracking,
    VerdictFile,
    evidence_refs,
    finish,
    ref,
    write,
)


def register(
    model: ModelRef,
    decision: Annotated[str, typer.Option(help="Gate decision: FOLDER or FOLDER@DIGEST.")],
    snapshot: SnapshotRef,
    out: Out,
    tracking: Tracking = TRACKING,
    evidence: Evidence = None,
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
        evidence=evidence_refs(evidence),
        tracking=tracking,
    )
    if version_file is not None:
        write(version_file, str(artifact.document.model_version))
    finish(artifact, digest_file, verdict_file, as_json)


COMMANDS = {"register": register}
"""What `holdfast` runs by these names."""
