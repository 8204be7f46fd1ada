"""`holdfast drift`."""

from holdfast.options import (
    AsJson,
    BaselineRef,
    Config,
    DigestFile,
    Out,
    Seed,
    SnapshotRef,
    VerdictFile,
    finish,
    maybe_ref,
    read_section,
    ref,
)


def drift(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    baseline: BaselineRef = None,
    seed: Seed = 0,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare the delivery with the champion's data, per column and by the champion's confidence."""
    from holdfast.data.drift.step import drift as step
    from holdfast.workload import DriftConfig

    section = read_section(config, DriftConfig, lambda workload: workload.drift)
    artifact = step(ref(snapshot), out, config=section, baseline=maybe_ref(baseline), seed=seed)
    finish(artifact, digest_file, verdict_file, as_json)


COMMANDS = {"drift": drift}
"""What `holdfast` runs by these names."""
