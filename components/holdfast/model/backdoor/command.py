"""`holdfast backdoor` and `holdfast mitigate`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.options import Config, ModelRef, Out, ScanRef, SnapshotRef, maybe_ref, read_section, ref, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact
    from holdfast.compute import Compute


@step_command
def backdoor(model: ModelRef, snapshot: SnapshotRef, config: Config, out: Out, settings: "Compute") -> "Artifact[Any]":
    """Look for a planted trigger in the trained model."""
    from holdfast.model.backdoor.step import backdoor as step
    from holdfast.workload.schema import BackdoorConfig

    section = read_section(config, BackdoorConfig, lambda workload: workload.backdoor)
    return step(ref(model), ref(snapshot), out, config=section, settings=settings)


@step_command
def mitigate(
    model: ModelRef,
    snapshot: SnapshotRef,
    backdoor: Annotated[str, typer.Option(help="Backdoor report that flags a class: FOLDER or FOLDER@DIGEST.")],
    out: Out,
    settings: "Compute",
    scan: ScanRef = None,
) -> "Artifact[Any]":
    """Make a model that unlearned the triggers which were found; it is a new candidate for the gate."""
    from holdfast.model.backdoor.mitigate import mitigate as step

    return step(ref(model), ref(snapshot), ref(backdoor), out, scan=maybe_ref(scan), settings=settings)


COMMANDS = {"backdoor": backdoor, "mitigate": mitigate}
"""What `holdfast` runs by these names."""
