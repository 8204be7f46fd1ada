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
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> dsl.ContainerSpec:
    """Judges a model by its evidence; succeeds with every verdict: the pipeline branches on it."""
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-m", "holdfast", "gate"],
        args=[
            *containers.inputs(model=(model, model_digest), snapshot=(snapshot, snapshot_digest)),
            *containers.inputs(schema=(schema, schema_digest), drift=(drift, drift_digest)),
            *containers.inputs(scan=(scan, scan_digest), backdoor=(backdoor, backdoor_digest)),
            *containers.inputs(attack=(attack, attack_digest), certify=(certify, certify_digest)),
            *containers.options(policy=policy),
            *containers.outputs(artifact, digest, verdict, page),
        ],
    )
