"""`holdfast baseline`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.options import TRACKING, Out, SnapshotRef, Tracking, TrustFileOption, ref, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact
    from holdfast.compute import Compute


@step_command
def baseline(
    snapshot: SnapshotRef,
    name: Annotated[str, typer.Option(help="Registered model.")],
    out: Out,
    settings: "Compute",
    tracking: Tracking = TRACKING,
    trust: TrustFileOption = None,
) -> "Artifact[Any]":
    """Fetch the champion and its scores, for comparison."""
    from holdfast.model.baseline.step import baseline as step

    return step(ref(snapshot), out, name=name, tracking=tracking, settings=settings, trust=trust)


COMMANDS = {"baseline": baseline}
"""What `holdfast` runs by these names."""
