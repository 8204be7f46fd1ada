"""`holdfast train`."""

from pathlib import Path
from typing import Annotated

import typer

from holdfast.options import (
    AsJson,
    Config,
    Device,
    DigestFile,
    Out,
    ScanRef,
    Seed,
    SnapshotRef,
    Threads,
    VerdictFile,
    compute_settings,
    finish,
    maybe_ref,
    read_section,
    ref,
)


def train(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    scan: ScanRef = None,
    checkpoint: Annotated[str, typer.Option(help="Folder for checkpoints; training resumes from it.")] = "",
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Train adversarially; keep the epoch with the best accuracy under attack."""
    from holdfast.model.train.step import train as step
    from holdfast.workload import TrainConfig

    section = read_section(config, TrainConfig, lambda workload: workload.train_config)
    settings, place = compute_settings(seed, device, threads), Path(checkpoint) if checkpoint else None
    artifact = step(ref(snapshot), out, scan=maybe_ref(scan), config=section, settings=settings, checkpoint=place)
    finish(artifact, digest_file, verdict_file, as_json)


COMMANDS = {"train": train}
"""What `holdfast` runs by these names."""
