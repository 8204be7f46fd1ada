"""`holdfast snapshot`."""

from pathlib import Path
from typing import Annotated

import typer

from holdfast.options import AsJson, Config, DigestFile, Out, VerdictFile, finish, read_section


def snapshot(
    config: Config,
    out: Out,
    data: Annotated[str | None, typer.Option(help="File to read instead of the workload's source.")] = None,
    review: Annotated[
        str | None, typer.Option(help="Review of quarantined rows instead of the workload's: FOLDER or FOLDER@DIGEST.")
    ] = None,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Pin the exact data: digests per file, Merkle root, rows, classes."""
    from holdfast.data.snapshot.step import snapshot as step
    from holdfast.workload import SnapshotConfig

    section = read_section(config, SnapshotConfig, lambda workload: workload.snapshot_config)
    artifact = step(section, out, data=Path(data) if data else None, review=review)
    finish(artifact, digest_file, verdict_file, as_json)


COMMANDS = {"snapshot": snapshot}
"""What `holdfast` runs by these names."""
