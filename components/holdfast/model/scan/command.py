"""`holdfast scan`."""

from holdfast.options import (
    AsJson,
    Config,
    Device,
    DigestFile,
    Out,
    Seed,
    SnapshotRef,
    Threads,
    VerdictFile,
    compute_settings,
    finish,
    read_section,
    ref,
)


def scan(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Scan the training rows for poison and label errors; set suspects aside within the review budget."""
    from holdfast.model.scan.step import scan as step
    from holdfast.workload import ScanConfig

    section = read_section(config, ScanConfig, lambda workload: workload.scan)
    artifact = step(ref(snapshot), out, config=section, settings=compute_settings(seed, device, threads))
    finish(artifact, digest_file, verdict_file, as_json)


COMMANDS = {"scan": scan}
"""What `holdfast` runs by these names."""
