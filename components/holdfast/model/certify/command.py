"""`holdfast certify`."""

from holdfast.options import (
    AsJson,
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
    read_section,
    ref,
)


def certify(
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
    """Certify robustness by randomized smoothing (text: randomized ablation)."""
    from holdfast.model.certify.step import certify as step
    from holdfast.workload import CertifyConfig

    section = read_section(config, CertifyConfig, lambda workload: workload.certify)
    settings = compute_settings(seed, device, threads)
    finish(step(ref(model), ref(snapshot), out, config=section, settings=settings), digest_file, verdict_file, as_json)


COMMANDS = {"certify": certify}
"""What `holdfast` runs by these names."""
