"""`holdfast train`, and the check of what it will need."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.options import (
    BaselineRef,
    Config,
    DeviceOption,
    Out,
    ScanRef,
    Seed,
    SnapshotRef,
    Threads,
    compute_settings,
    maybe_ref,
    read_section,
    ref,
    step_command,
)

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Artifact
    from holdfast.compute import Compute


@step_command
def train(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    settings: "Compute",
    scan: ScanRef = None,
    baseline: BaselineRef = None,
    checkpoint: Annotated[str, typer.Option(help="Folder for checkpoints; training resumes from it.")] = "",
    job: Annotated[
        str,
        typer.Option(help="Train in the pods of a TrainJob or PyTorchJob, which this pod submits: settings as JSON."),
    ] = "",
) -> "Artifact[Any]":
    """Train adversarially; keep the epoch with the best accuracy under attack."""
    from holdfast.model.train.step import train as step
    from holdfast.workload.schema import TrainConfig

    section = read_section(config, TrainConfig, lambda workload: workload.train_config)
    if job:
        from holdfast.model.train.job import JobConfig
        from holdfast.model.train.launch import train_on_cluster
        from holdfast.model.train.workers import TrainInputs
        from holdfast.workload.yaml import parse_yaml

        given = TrainInputs(ref(snapshot), maybe_ref(scan), maybe_ref(baseline))
        asked = parse_yaml(job, JobConfig, name="--job")
        return train_on_cluster(given, out, config=section, settings=settings, job=asked)
    place = Path(checkpoint) if checkpoint else None
    return step(
        ref(snapshot),
        out,
        scan=maybe_ref(scan),
        baseline=maybe_ref(baseline),
        config=section,
        settings=settings,
        checkpoint=place,
    )


def check_network(
    config: Config,
    snapshot: Annotated[
        str | None, typer.Option(help="Snapshot to try the network on: FOLDER or FOLDER@DIGEST.")
    ] = None,
    seed: Seed = 0,
    device: DeviceOption = "auto",
    threads: Threads = 1,
) -> None:
    """Say whether a workload's network and own code can be used, without training; silent when they can."""
    from holdfast.artifacts.documents import Snapshot
    from holdfast.artifacts.folder import load
    from holdfast.model.train.check import check_network as check
    from holdfast.workload.schema import Workload

    workload = read_section(config, Workload, lambda found: found)
    found = None if snapshot is None else load(ref(snapshot), Snapshot)
    check(workload, found, compute_settings(seed, device, threads))


COMMANDS = {"train": train, "check-network": check_network}
"""What `holdfast` runs by these names."""
