"""The detect step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def detect(
    model: dsl.Input[dsl.Model],
    model_digest: str,
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
    """Measures what detectors of single adversarial inputs notice."""
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-m", "holdfast", "detect"],
        args=[
            *containers.inputs(model=(model, model_digest), snapshot=(snapshot, snapshot_digest)),
            *containers.options(config=config, seed=seed, device=device, threads=threads),
            *containers.outputs(artifact, digest, verdict),
        ],
    )
