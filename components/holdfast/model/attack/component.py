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
    metrics: dsl.Output[dsl.Metrics],
    confusion_matrix: dsl.Output[dsl.ClassificationMetrics],
    confusion_matrix_under_attack: dsl.Output[dsl.ClassificationMetrics],
) -> dsl.ContainerSpec:
    """Measures accuracy under attack, and the champion's on the same examples."""
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-m", "holdfast", "attack"],
        args=[
            *containers.inputs(
                model=(model, model_digest), snapshot=(snapshot, snapshot_digest), baseline=(baseline, baseline_digest)
            ),
            *containers.options(config=config, seed=seed, device=device, threads=threads),
            *containers.outputs(artifact, digest, verdict),
        ],
    )
