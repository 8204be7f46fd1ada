"""`holdfast baseline`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.options import TRACKING, Because, Out, SnapshotRef, Tracking, TrustFileOption, ref, step_command

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
    because: Because = "",
) -> "Artifact[Any]":
    """Fetch the champion and its scores, for comparison."""
    from holdfast.artifacts.requests import read_request
    from holdfast.model.baseline.step import baseline as step

    asked = read_request(because) if because else None
    return step(ref(snapshot), out, name=name, tracking=tracking, settings=settings, trust=trust, because=asked)


COMMANDS = {"baseline": baseline}
"""What `holdfast` runs by these names."""
