"""The rollout step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def rollout(
    name: str,
    version: int,
    tracking: str,
    config: str,
    driver: str,
    target: str,
    seed: int,
    game_day: str,
    trust: str,
    page: dsl.Output[dsl.HTML],
    artifact: dsl.Output[dsl.Artifact],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
    metrics: dsl.Output[dsl.Metrics],
) -> dsl.ContainerSpec:
    """Rolls a registered version out: `driver` moves the traffic of what `target`, the text of a target file, names.

    With `envoy` and an empty `target` both models are served in this pod; an empty `game_day` or `trust` is none.
    """
    return dsl.ContainerSpec(
        image=containers.SERVING,
        command=["python", "-m", "holdfast", "rollout", "start"],
        args=[
            *containers.options(name=name, version=version, tracking=tracking, config=config, driver=driver),
            *containers.options(target=target, seed=seed, game_day=game_day, trust=trust),
            *containers.outputs(artifact, digest, verdict, page),
        ],
    )
