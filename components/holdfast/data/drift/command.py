"""`holdfast drift`."""

from typing import TYPE_CHECKING, Any

from holdfast.options import BaselineRef, Config, Out, Seed, SnapshotRef, maybe_ref, read_section, ref, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact


@step_command
def drift(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    baseline: BaselineRef = None,
    seed: Seed = 0,
) -> "Artifact[Any]":
    """Compare the delivery with the champion's data, per column and by the champion's confidence."""
    from holdfast.data.drift.step import drift as step
    from holdfast.workload.schema import DriftConfig

    section = read_section(config, DriftConfig, lambda workload: workload.drift)
    return step(ref(snapshot), out, config=section, baseline=maybe_ref(baseline), seed=seed)


COMMANDS = {"drift": drift}
"""What `holdfast` runs by these names."""
