"""The extract step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def extract(
    config: str,
    model: dsl.Input[dsl.Model],
    snapshot: dsl.Input[dsl.Dataset],
    model_digest: str,
    snapshot_digest: str,
    seed: int,
    threads: int,
    device: str,
    digest: dsl.OutputPath(str),
    artifact: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    verdict: dsl.OutputPath(str),
) -> dsl.ContainerSpec:
    """Copies the model by its answers, and counts how often the copies agree with it."""
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-m", "holdfast", "extract"],
        args=[
            *containers.options(config=config, seed=seed, device=device, threads=threads),
            *containers.inputs(model=(model, model_digest), snapshot=(snapshot, snapshot_digest)),
            *containers.outputs(artifact, digest, verdict),
        ],
    )
