"""`holdfast baseline`."""

from typing import Annotated

import typer

from holdfast.options import (
    TRACKING,
    AsJson,
    Device,
    DigestFile,
    Out,
    Seed,
    SnapshotRef,
    Threads,
    Tracking,
    VerdictFile,
    compute_settings,
    finish,
    ref,
)


def baseline(
    snapshot: SnapshotRef,
    name: Annotated[str, typer.Option(help="Registered model.")],
    out: Out,
    tracking: Tracking = TRACKING,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the champion and its scores, for comparison."""
    from holdfast.model.baseline.step import baseline as step

    settings = compute_settings(seed, device, threads)
    artifact = step(ref(snapshot), out, name=name, tracking=tracking, settings=settings)
    finish(artifact, digest_file, verdict_file, as_json)


COMMANDS = {"baseline": baseline}
"""What `holdfast` runs by these names."""
