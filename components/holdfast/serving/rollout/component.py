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
    artifact: dsl.Output[dsl.Artifact],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
) -> dsl.ContainerSpec:
    """Rolls a registered version out.

    With the driver `envoy` and an empty `target` both models are served in this pod; another driver moves the traffic
    of the object that `target`, the text of a target file, names. An empty `game_day` breaks nothing on purpose.
    """
    return dsl.ContainerSpec(
        image=containers.SERVING,
        command=["python", "-m", "holdfast", "rollout", "start"],
        args=[
            f"--name={name}",
            f"--version={version}",
            f"--tracking={tracking}",
            f"--config={config}",
            f"--driver={driver}",
            f"--target={target}",
            f"--seed={seed}",
            f"--game-day={game_day}",
            f"--out={artifact.path}",
            f"--digest-file={digest}",
            f"--verdict-file={verdict}",
        ],
    )
