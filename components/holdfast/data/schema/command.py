"""`holdfast schema`."""

from typing import TYPE_CHECKING, Any

from holdfast.options import BaselineRef, Config, Out, SnapshotRef, maybe_ref, read_section, ref, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact


@step_command
def schema(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    baseline: BaselineRef = None,
) -> "Artifact[Any]":
    """Hold the data against its schema (TensorFlow Data Validation)."""
    from holdfast.data.schema.step import schema as step
    from holdfast.workload.schema import SchemaConfig

    section = read_section(config, SchemaConfig, lambda workload: workload.schema_)
    return step(ref(snapshot), out, config=section, baseline=maybe_ref(baseline))


COMMANDS = {"schema": schema}
"""What `holdfast` runs by these names."""
