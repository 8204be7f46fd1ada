"""`holdfast schema`."""

from holdfast.options import (
    AsJson,
    BaselineRef,
    Config,
    DigestFile,
    Out,
    SnapshotRef,
    VerdictFile,
    finish,
    maybe_ref,
    read_section,
    ref,
)


def schema(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    baseline: BaselineRef = None,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Hold the data against its schema (TensorFlow Data Validation)."""
    from holdfast.data.schema.step import schema as step
    from holdfast.workload import SchemaConfig

    section = read_section(config, SchemaConfig, lambda workload: workload.schema_)
    finish(step(ref(snapshot), out, config=section, baseline=maybe_ref(baseline)), digest_file, verdict_file, as_json)


COMMANDS = {"schema": schema}
"""What `holdfast` runs by these names."""
