"""The scan step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def scan(
    snapshot: dsl.Input[dsl.Dataset],
    snapshot_digest: str,
    config: str,
    seed: int,
    device: str,
    threads: int,
    artifact: dsl.Output[dsl.Artifact],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
    metrics: dsl.Output[dsl.Metrics],
) -> dsl.ContainerSpec:
    """Sets suspected rows aside."""
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-m", "holdfast", "scan"],
        args=[
            *containers.inputs(snapshot=(snapshot, snapshot_digest)),
            *containers.options(config=config, seed=seed, device=device, threads=threads),
            *containers.outputs(artifact, digest, verdict),
        ],
    )
