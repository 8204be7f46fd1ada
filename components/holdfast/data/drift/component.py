"""The drift step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def drift(
    snapshot: dsl.Input[dsl.Dataset],
    snapshot_digest: str,
    baseline: dsl.Input[dsl.Artifact],
    baseline_digest: str,
    config: str,
    seed: int,
    artifact: dsl.Output[dsl.Artifact],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
) -> dsl.ContainerSpec:
    """Compares a snapshot with the champion's data; the verdict decides whether the run goes on."""
    return dsl.ContainerSpec(
        image=containers.DATA,
        command=["python", "-m", "holdfast", "drift"],
        args=[
            *containers.inputs(snapshot=(snapshot, snapshot_digest), baseline=(baseline, baseline_digest)),
            *containers.options(config=config, seed=seed),
            *containers.outputs(artifact, digest, verdict, page),
        ],
    )
