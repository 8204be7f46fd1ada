"""The train step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def train(
    snapshot: dsl.Input[dsl.Dataset],
    snapshot_digest: str,
    baseline: dsl.Input[dsl.Artifact],
    baseline_digest: str,
    scan: dsl.Input[dsl.Artifact],
    scan_digest: str,
    config: str,
    seed: int,
    device: str,
    threads: int,
    checkpoint: str,
    artifact: dsl.Output[dsl.Model],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
    metrics: dsl.Output[dsl.Metrics],
) -> dsl.ContainerSpec:
    """Trains on the rows that the scan left; resumes from `checkpoint` when that folder outlives the container."""
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-m", "holdfast", "train"],
        args=[
            *containers.inputs(
                snapshot=(snapshot, snapshot_digest), scan=(scan, scan_digest), baseline=(baseline, baseline_digest)
            ),
            *containers.options(config=config, seed=seed, device=device, threads=threads, checkpoint=checkpoint),
            *containers.outputs(artifact, digest, verdict),
        ],
    )
