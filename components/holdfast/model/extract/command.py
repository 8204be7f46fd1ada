"""`holdfast extract`."""

from typing import TYPE_CHECKING, Any

from holdfast.options import Config, ModelRef, Out, SnapshotRef, read_section, ref, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact
    from holdfast.compute import Compute


@step_command
def extract(model: ModelRef, snapshot: SnapshotRef, config: Config, out: Out, settings: "Compute") -> "Artifact[Any]":
    """Copy the model by its answers, and count how often the copies agree with it."""
    from holdfast.model.extract.step import extract as step
    from holdfast.workload.schema import ExtractConfig

    section = read_section(config, ExtractConfig, lambda workload: workload.extract)
    return step(ref(model), ref(snapshot), out, config=section, settings=settings)


COMMANDS = {"extract": extract}
"""What `holdfast` runs by these names."""
