"""The request step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def request(
    report: dsl.Input[dsl.Artifact],
    report_digest: str,
    metrics: dsl.Output[dsl.Metrics],
    config: str,
    verdict: dsl.OutputPath(str),
    digest: dsl.OutputPath(str),
    artifact: dsl.Output[dsl.Artifact],
) -> dsl.ContainerSpec:
    """Asks for a retraining because of a report of the monitor."""
    return dsl.ContainerSpec(
        image=containers.SERVING,
        command=["python", "-m", "holdfast", "request"],
        args=[
            *containers.inputs(report=(report, report_digest)),
            *containers.options(config=config),
            *containers.outputs(artifact, digest, verdict),
        ],
    )
