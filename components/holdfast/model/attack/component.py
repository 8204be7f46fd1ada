"""The attack step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def attack(
    model: dsl.Input[dsl.Model],
    model_digest: str,
    snapshot: dsl.Input[dsl.Dataset],
    snapshot_digest: str,
    baseline: dsl.Input[dsl.Artifact],
    baseline_digest: str,
    config: str,
    seed: int,
    device: str,
    threads: int,
    artifact: dsl.Output[dsl.Artifact],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
) -> dsl.ContainerSpec:
    """Measures accuracy under attack, and the champion's on the same examples."""
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-m", "holdfast", "attack"],
        args=[
            f"--model={model.path}@{model_digest}",
            f"--snapshot={snapshot.path}@{snapshot_digest}",
            f"--baseline={baseline.path}@{baseline_digest}",
            f"--config={config}",
            f"--seed={seed}",
            f"--device={device}",
            f"--threads={threads}",
            f"--out={artifact.path}",
            f"--digest-file={digest}",
            f"--verdict-file={verdict}",
        ],
    )
