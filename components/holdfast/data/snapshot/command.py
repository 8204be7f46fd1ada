"""`holdfast snapshot`, and the commands that look at data before it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.data.snapshot.inspection import commands as inspection
from holdfast.options import Config, Out, read_section, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact


@step_command
def snapshot(
    config: Config,
    out: Out,
    data: Annotated[str | None, typer.Option(help="File to read instead of the workload's source.")] = None,
    review: Annotated[
        str | None, typer.Option(help="Review of quarantined rows instead of the workload's: FOLDER or FOLDER@DIGEST.")
    ] = None,
) -> "Artifact[Any]":
    """Pin the exact data: digests per file, Merkle root, rows, classes."""
    from holdfast.data.snapshot.step import snapshot as step
    from holdfast.workload.schema import SnapshotConfig

    section = read_section(config, SnapshotConfig, lambda workload: workload.snapshot_config)
    return step(section, out, data=Path(data) if data else None, review=review)


COMMANDS = {**inspection.COMMANDS, "snapshot": snapshot}
"""What `holdfast` runs by these names."""
