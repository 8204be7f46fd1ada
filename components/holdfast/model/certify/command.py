"""`holdfast certify`."""

from typing import TYPE_CHECKING, Any

from holdfast.options import Config, ModelRef, Out, SnapshotRef, read_section, ref, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact
    from holdfast.compute import Compute


@step_command
def certify(model: ModelRef, snapshot: SnapshotRef, config: Config, out: Out, settings: "Compute") -> "Artifact[Any]":
    """Certify robustness by randomized smoothing (text: randomized ablation)."""
    from holdfast.model.certify.step import certify as step
    from holdfast.workload.schema import CertifyConfig

    section = read_section(config, CertifyConfig, lambda workload: workload.certify)
    return step(ref(model), ref(snapshot), out, config=section, settings=settings)


COMMANDS = {"certify": certify}
"""What `holdfast` runs by these names."""
