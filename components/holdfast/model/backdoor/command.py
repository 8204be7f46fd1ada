"""`holdfast backdoor` and `holdfast mitigate`."""

from typing import Annotated

import typer

from holdfast.options import (
    AsJson,
    Config,
    Device,
    DigestFile,
    ModelRef,
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


def backdoor(
    model: ModelRef,
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
    """Look for a planted trigger in the trained model."""
    from holdfast.model.backdoor.step import backdoor as step
    from holdfast.workload import BackdoorConfig

    section = read_section(config, BackdoorConfig, lambda workload: workload.backdoor)
    settings = compute_settings(seed, device, threads)
    finish(step(ref(model), ref(snapshot), out, config=section, settings=settings), digest_file, verdict_file, as_json)


def mitigate(
    model: ModelRef,
    snapshot: SnapshotRef,
    backdoor: Annotated[str, typer.Option(help="Backdoor report that flags a class: FOLDER or FOLDER@DIGEST.")],
    out: Out,
    scan: ScanRef = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
    digest_file: DigestFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a model that unlearned the triggers which were found; it is a new candidate for the gate."""
    from holdfast.model.backdoor.mitigate import mitigate as step

    settings = compute_settings(seed, device, threads)
    artifact = step(ref(model), ref(snapshot), ref(backdoor), out, scan=maybe_ref(scan), settings=settings)
    finish(artifact, digest_file, None, as_json)


COMMANDS = {"backdoor": backdoor, "mitigate": mitigate}
"""What `holdfast` runs by these names."""
