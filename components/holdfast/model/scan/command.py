"""`holdfast scan`."""

from typing import TYPE_CHECKING, Any

from holdfast.options import Config, Out, SnapshotRef, read_section, ref, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact
    from holdfast.compute import Compute


@step_command
def scan(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    settings: "Compute",
) -> "Artifact[Any]":
    """Scan the training rows for poison and label errors; set suspects aside within the review budget."""
    from holdfast.model.scan.step import scan as step
    from holdfast.workload.schema import ScanConfig

    section = read_section(config, ScanConfig, lambda workload: workload.scan)
    return step(ref(snapshot), out, config=section, settings=settings)


COMMANDS = {"scan": scan}
"""What `holdfast` runs by these names."""
