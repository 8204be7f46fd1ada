"""The snapshot step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def snapshot(
    config: str,
    metrics: dsl.Output[dsl.Metrics],
    artifact: dsl.Output[dsl.Dataset],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
) -> dsl.ContainerSpec:
    """Pins the exact data of one delivery; the section itself names the path of the data."""
    return dsl.ContainerSpec(
        image=containers.DATA,
        command=["python", "-m", "holdfast", "snapshot"],
        args=[
            *containers.options(config=config),
            *containers.outputs(artifact, digest, verdict),
        ],
    )
