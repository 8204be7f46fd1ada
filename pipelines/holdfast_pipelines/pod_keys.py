"""Keys, trust policy and waivers in the pods of a cluster: mounted by reference, each only where it is used."""

from kfp import dsl, kubernetes

from holdfast.artifacts.documents import MonitorReport
from holdfast.attestation.sign import TRUST
from holdfast.steps import every, writer
from holdfast_pipelines.cluster import DECIDES, SigningKeys
from holdfast_pipelines.signing import TAKES_A_MODEL

KEY = "/var/run/holdfast/key"
TRUSTED = "/var/run/holdfast/trust"
STATEMENTS = "/var/run/holdfast/statements"
RUN = "HOLDFAST_RUN"
"""The variable with the id of the run, by which its statements have a folder of their own."""
_RUN_LABEL = "metadata.labels['pipeline/runid']"
"""What Kubeflow Pipelines writes on every pod of a run."""


_WATCHES = writer(MonitorReport).name
"""It takes the champion in."""


def signed_in_pod(task: dsl.PipelineTask, signing: SigningKeys | None) -> None:
    """Gives the pod of a step the key of its role, the trust policy and the waivers, as far as the step takes them."""
    step = next((one for one in every() if one.name == task.name), None)
    if signing is None or step is None:
        return
    words = []
    secret = signing.keys.get(step.signed_by)
    if secret is not None:
        kubernetes.use_secret_as_volume(task, secret, KEY)
        words.append(f"--key={KEY}/key.pem")
    if signing.trust is not None and step.name in (DECIDES, *TAKES_A_MODEL, _WATCHES):
        kubernetes.use_secret_as_volume(task, signing.trust, TRUSTED)
        words.append(f"--trust={TRUSTED}/{TRUST}")
    if signing.waivers is not None and step.name == DECIDES:
        words.append(f"--waivers={signing.waivers}")
    if words:
        kubernetes.use_field_path_as_env(task, RUN, _RUN_LABEL)
        kubernetes.mount_pvc(task, signing.statements, STATEMENTS)
        # The kubelet writes the run's id in place of the variable.
        task.container_spec.args = [*task.container_spec.args, *words, f"--attestations={STATEMENTS}/$({RUN})"]
