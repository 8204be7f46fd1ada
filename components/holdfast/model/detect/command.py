"""`holdfast detect`."""

from typing import TYPE_CHECKING, Any

from holdfast.options import Config, ModelRef, Out, SnapshotRef, read_section, ref, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact
    from holdfast.compute import Compute


@step_command
def detect(model: ModelRef, snapshot: SnapshotRef, config: Config, out: Out, settings: "Compute") -> "Artifact[Any]":
    """Measure what detectors of single adversarial inputs notice, also of an attacker who knows them."""
    from holdfast.model.detect.step import detect as step
    from holdfast.workload.schema import DetectConfig

    section = read_section(config, DetectConfig, lambda workload: workload.detect)
    return step(ref(model), ref(snapshot), out, config=section, settings=settings)


COMMANDS = {"detect": detect}
"""What `holdfast` runs by these names."""
