"""`holdfast attack` and `holdfast probe`."""

from pathlib import Path
from typing import Annotated

import typer

from holdfast.options import (
    AsJson,
    BaselineRef,
    Config,
    Device,
    DigestFile,
    ModelRef,
    Out,
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


def attack(
    model: ModelRef,
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    baseline: BaselineRef = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy under attack; the worst case per example is the headline."""
    from holdfast.model.attack.step import attack as step
    from holdfast.workload import AttackConfig

    section = read_section(config, AttackConfig, lambda workload: workload.attack)
    settings = compute_settings(seed, device, threads)
    artifact = step(ref(model), ref(snapshot), out, config=section, baseline=maybe_ref(baseline), settings=settings)
    finish(artifact, digest_file, verdict_file, as_json)


def probe(
    url: Annotated[str, typer.Option(help="V2 address of a served model: http://HOST/v2/models/NAME.")],
    snapshot: SnapshotRef,
    workload: Annotated[Path, typer.Option(help="Workload file: its threat model, tier and number of examples.")],
    out: Out,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Attack a served model through its answers alone."""
    from holdfast.model.attack.probe import probe as step
    from holdfast.workload import read_workload

    settings = compute_settings(seed, "cpu", 1)
    finish(step(url, ref(snapshot), out, workload=read_workload(workload), settings=settings), None, None, as_json)


COMMANDS = {"attack": attack, "probe": probe}
"""What `holdfast` runs by these names."""
