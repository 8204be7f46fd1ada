"""The baseline step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def baseline(
    snapshot: dsl.Input[dsl.Dataset],
    snapshot_digest: str,
    name: str,
    tracking: str,
    seed: int,
    device: str,
    threads: int,
    because: str,
    metrics: dsl.Output[dsl.Metrics],
    artifact: dsl.Output[dsl.Artifact],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
) -> dsl.ContainerSpec:
    """Fetches the champion; without one the artifact records that, so that no later input is optional."""
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-m", "holdfast", "baseline"],
        args=[
            *containers.inputs(snapshot=(snapshot, snapshot_digest)),
            *containers.options(name=name, tracking=tracking, seed=seed, device=device, threads=threads),
            *containers.options(because=because),
            *containers.outputs(artifact, digest, verdict),
        ],
    )
