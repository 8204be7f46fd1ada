"""The register step as a container of a pipeline."""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from kfp import dsl

from holdfast import containers


@dsl.container_component
def register(
    model: dsl.Input[dsl.Model],
    model_digest: str,
    decision: dsl.Input[dsl.Artifact],
    decision_digest: str,
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
    tracking: str,
    trust: str,
    artifact: dsl.Output[dsl.Artifact],
    digest: dsl.OutputPath(str),
    verdict: dsl.OutputPath(str),
    model_version: dsl.OutputPath(int),
    metrics: dsl.Output[dsl.Metrics],
) -> dsl.ContainerSpec:
    """Registers the model that passed; refuses any other by itself. An empty `trust` is no trust policy."""
    return dsl.ContainerSpec(
        image=containers.MODEL,
        command=["python", "-m", "holdfast", "register"],
        args=[
            *containers.inputs(model=(model, model_digest), decision=(decision, decision_digest)),
            *containers.inputs(schema=(schema, schema_digest), drift=(drift, drift_digest), scan=(scan, scan_digest)),
            *containers.inputs(snapshot=(snapshot, snapshot_digest), backdoor=(backdoor, backdoor_digest)),
            *containers.inputs(attack=(attack, attack_digest), certify=(certify, certify_digest)),
            *containers.options(policy=policy, tracking=tracking, trust=trust, version_file=model_version),
            *containers.outputs(artifact, digest, verdict),
        ],
    )
