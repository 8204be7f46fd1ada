"""`holdfast calibrate`."""

from typing import TYPE_CHECKING, Any

from holdfast.options import Config, ModelRef, Out, SnapshotRef, read_section, ref, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact
    from holdfast.compute import Compute


@step_command
def calibrate(model: ModelRef, snapshot: SnapshotRef, config: Config, out: Out, settings: "Compute") -> "Artifact[Any]":
    """Measure what the guard of a served model compares queries with."""
    from holdfast.serving.guard.step import calibrate as step
    from holdfast.workload.schema import GuardConfig

    section = read_section(config, GuardConfig, lambda workload: workload.guard)
    return step(ref(model), ref(snapshot), out, config=section, settings=settings)


COMMANDS = {"calibrate": calibrate}
"""What `holdfast` runs by these names."""
