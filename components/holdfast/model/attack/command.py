"""`holdfast attack` and `holdfast probe`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.options import (
    BaselineRef,
    Config,
    ModelRef,
    Out,
    PartRefs,
    Seed,
    ShardOption,
    SnapshotRef,
    compute_settings,
    maybe_ref,
    placed_workload,
    read_section,
    ref,
    step_command,
)

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact
    from holdfast.compute import Compute


@step_command
def attack(
    model: ModelRef,
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    settings: "Compute",
    baseline: BaselineRef = None,
    shard: ShardOption = None,
    part: PartRefs = None,
) -> "Artifact[Any]":
    """Measure accuracy under attack; the worst case per example is the headline."""
    from holdfast.model.attack import step
    from holdfast.model.shards import asked
    from holdfast.workload.schema import AttackConfig

    (one, parts), given = asked(shard, part), (ref(model), ref(snapshot), out)
    section = read_section(config, AttackConfig, lambda workload: workload.attack)
    champion = maybe_ref(baseline)
    if one is not None:
        return step.attack_part(*given, config=section, baseline=champion, settings=settings, shard=one)
    if parts:
        return step.merge(*given, config=section, baseline=champion, settings=settings, parts=parts)
    return step.attack(*given, config=section, baseline=champion, settings=settings)


@step_command
def probe(
    url: Annotated[str, typer.Option(help="V2 address of a served model: http://HOST/v2/models/NAME.")],
    snapshot: SnapshotRef,
    workload: Annotated[Path, typer.Option(help="Workload file: its threat model, tier and number of examples.")],
    out: Out,
    seed: Seed = 0,
) -> "Artifact[Any]":
    """Attack a served model through its answers alone."""
    from holdfast.model.attack.probe import probe as step

    settings = compute_settings(seed, "cpu", 1)
    return step(url, ref(snapshot), out, workload=placed_workload(workload), settings=settings)


COMMANDS = {"attack": attack, "probe": probe}
"""What `holdfast` runs by these names."""
