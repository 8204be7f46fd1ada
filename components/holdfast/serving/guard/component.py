"""The calibrate step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def calibrate(
    seed: int,
    config: str,
    model: dsl.Input[dsl.Model],
    model_digest: str,
    snapshot: dsl.Input[dsl.Dataset],
    snapshot_digest: str,
    threads: int,
    metrics: dsl.Output[dsl.Metrics],
    device: str,
    artifact: dsl.Output[dsl.Artifact],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
) -> dsl.ContainerSpec:
    """Measures what the guard of this model compares queries with."""
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-m", "holdfast", "calibrate"],
        args=[
            *containers.options(config=config, seed=seed, device=device, threads=threads),
            *containers.inputs(model=(model, model_digest), snapshot=(snapshot, snapshot_digest)),
            *containers.outputs(artifact, digest, verdict),
        ],
    )
