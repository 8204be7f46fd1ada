"""The monitor step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def monitor(
    name: str,
    tracking: str,
    config: str,
    trust: str,
    page: dsl.Output[dsl.HTML],
    artifact: dsl.Output[dsl.Artifact],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
    asks: dsl.OutputPath(str),
    metrics: dsl.Output[dsl.Metrics],
) -> dsl.ContainerSpec:
    """Judges the champion by the log of its servers; `asks` is yes where a retraining is to be asked for."""
    return dsl.ContainerSpec(
        image=containers.SERVING,
        command=["python", "-m", "holdfast", "monitor", "run"],
        args=[
            *containers.options(name=name, tracking=tracking, config=config, trust=trust, asks_file=asks),
            *containers.outputs(artifact, digest, verdict, page),
        ],
    )
