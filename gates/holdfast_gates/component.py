"""The gate as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def gate(
    model: dsl.Input[dsl.Model],
    model_digest: str,
    snapshot: dsl.Input[dsl.Dataset],
    snapshot_digest: str,
    schema: dsl.Input[dsl.Artifact],
    schema_digest: str,
    drift: dsl.Input[dsl.Artifact],
    drift_digest: str,
    scan: dsl.Input[dsl.Artifact],
    scan_digest: str,
    backdoor: dsl.Input[dsl.Artifact],
    backdoor_digest: str,
    attack: dsl.Input[dsl.Artifact],
    attack_digest: str,
    certify: dsl.Input[dsl.Artifact],
    certify_digest: str,
    policy: str,
    artifact: dsl.Output[dsl.Artifact],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
) -> dsl.ContainerSpec:
    """Judges a model by its evidence; succeeds with every verdict: the pipeline branches on it."""
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-m", "holdfast", "gate"],
        args=[
            f"--model={model.path}@{model_digest}",
            f"--snapshot={snapshot.path}@{snapshot_digest}",
            f"--schema={schema.path}@{schema_digest}",
            f"--drift={drift.path}@{drift_digest}",
            f"--scan={scan.path}@{scan_digest}",
            f"--backdoor={backdoor.path}@{backdoor_digest}",
            f"--attack={attack.path}@{attack_digest}",
            f"--certify={certify.path}@{certify_digest}",
            f"--policy={policy}",
            f"--out={artifact.path}",
            f"--digest-file={digest}",
            f"--verdict-file={verdict}",
        ],
    )
