"""The schema step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def schema(
    snapshot: dsl.Input[dsl.Dataset],
    snapshot_digest: str,
    baseline: dsl.Input[dsl.Artifact],
    baseline_digest: str,
    config: str,
    artifact: dsl.Output[dsl.Artifact],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
    metrics: dsl.Output[dsl.Metrics],
) -> dsl.ContainerSpec:
    """Holds a snapshot against its schema; the verdict decides whether the run goes on."""
    return dsl.ContainerSpec(
        image=containers.DATA,
        command=["python", "-m", "holdfast", "schema"],
        args=[
            *containers.inputs(snapshot=(snapshot, snapshot_digest), baseline=(baseline, baseline_digest)),
            *containers.options(config=config),
            *containers.outputs(artifact, digest, verdict),
        ],
    )
