"""`holdfast certify`."""

from typing import TYPE_CHECKING, Any

from holdfast.options import (
    Config,
    ModelRef,
    Out,
    PartRefs,
    ShardOption,
    SnapshotRef,
    read_section,
    ref,
    step_command,
)

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact
    from holdfast.compute import Compute


@step_command
def certify(
    model: ModelRef,
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    settings: "Compute",
    shard: ShardOption = None,
    part: PartRefs = None,
) -> "Artifact[Any]":
    """Certify robustness by randomized smoothing (text: randomized ablation)."""
    from holdfast.model.certify import step
    from holdfast.model.shards import asked
    from holdfast.workload.schema import CertifyConfig

    (one, parts), given = asked(shard, part), (ref(model), ref(snapshot), out)
    section = read_section(config, CertifyConfig, lambda workload: workload.certify)
    if one is not None:
        return step.certify_part(*given, config=section, settings=settings, shard=one)
    if parts:
        return step.merge(*given, config=section, settings=settings, parts=parts)
    return step.certify(*given, config=section, settings=settings)


COMMANDS = {"certify": certify}
"""What `holdfast` runs by these names."""
