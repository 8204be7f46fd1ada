"""`holdfast train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.options import (
    BaselineRef,
    Config,
    Out,
    ScanRef,
    SnapshotRef,
    maybe_ref,
    read_section,
    ref,
    step_command,
)

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact
    from holdfast.compute import Compute


@step_command
def train(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    settings: "Compute",
    scan: ScanRef = None,
    baseline: BaselineRef = None,
    checkpoint: Annotated[str, typer.Option(help="Folder for checkpoints; training resumes from it.")] = "",
) -> "Artifact[Any]":
    """Train adversarially; keep the epoch with the best accuracy under attack."""
    from holdfast.model.train.step import train as step
    from holdfast.workload.schema import TrainConfig

    section = read_section(config, TrainConfig, lambda workload: workload.train_config)
    place = Path(checkpoint) if checkpoint else None
    return step(
        ref(snapshot),
        out,
        scan=maybe_ref(scan),
        baseline=maybe_ref(baseline),
        config=section,
        settings=settings,
        checkpoint=place,
    )


COMMANDS = {"train": train}
"""What `holdfast` runs by these names."""
