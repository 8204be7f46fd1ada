"""Training on several pods of a cluster: a TrainJob (Kubeflow Trainer, v2) or a PyTorchJob (Training Operator, v1).

Both start `torchrun -m holdfast train` once in each pod. A TrainJob takes its pods from a TrainingRuntime, which is
made with it: how a job overrides the pods of a runtime that is there has changed between versions, runtimes have not.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from holdfast.compute import GPUS
from holdfast.kubernetes.api import Resource
from holdfast.kubernetes.objects import Json
from holdfast.workload.schema import Section

JobKind = Literal["TrainJob", "PyTorchJob"]
USER = 65532
"""Whose the files of the images are."""
RESTARTS = 3
"""How often all pods start again, from the last checkpoint, before the job has failed."""
DONE = ("Complete", "Succeeded")
"""Conditions of a job that ended well."""
FAILED = "Failed"
_TRAINER, _OPERATOR = "trainer.kubeflow.org", "kubeflow.org"
_CONTAINER: Mapping[JobKind, str] = {"TrainJob": "node", "PyTorchJob": "pytorch"}
"""The name by which each controller knows the container that it gives its environment to."""
_LABEL = "app.kubernetes.io/name"


class PodToleration(Section):
    """A taint of nodes that the pods accept."""

    key: str = ""
    """Of the taint; empty: every taint."""
    value: str = ""
    """Of the taint; empty: any."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Of the taint; empty: every one."""


class JobConfig(Section):
    """What a job's pods are like."""

    kind: JobKind = "TrainJob"
    """TrainJob: Kubeflow Trainer (v2). PyTorchJob: Training Operator (v1)."""
    image: Annotated[str, Field(min_length=1)]
    """That of the model environment."""
    claim: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
    """A PersistentVolumeClaim (ReadWriteMany) that all pods and the step that submits them see at `path`."""
    path: Annotated[str, Field(pattern=r"^/[^.].*$")] = "/holdfast/training"
    """Where they see it."""
    cpu: str = "2"
    """Cores that a pod requests."""
    memory: str = "8G"
    """Requested by a pod, and its limit."""
    gpu: int = Field(0, ge=0, le=1)
    """GPUs of a pod, which is one process."""
    node_selector: dict[str, str] = {}
    """Labels of the nodes."""
    tolerations: tuple[PodToleration, ...] = ()
    """Taints of the nodes."""


def resource(kind: JobKind, namespace: str) -> Resource:
    """The jobs of a kind."""
    if kind == "TrainJob":
        return Resource(_TRAINER, "v1alpha1", "trainjobs", namespace)
    return Resource(_OPERATOR, "v1", "pytorchjobs", namespace)


def runtimes(namespace: str) -> Resource:
    """What TrainJobs take their pods from."""
    return Resource(_TRAINER, "v1alpha1", "trainingruntimes", namespace)


def objects(
    config: JobConfig, name: str, namespace: str, words: Sequence[str], count: int
) -> list[tuple[Resource, Json]]:
    """What is to be created for `count` pods that run `holdfast train` with these words, in this order."""
    if config.kind == "PyTorchJob":
        return [(resource(config.kind, namespace), _pytorch_job(config, name, words, count))]
    runtime = {
        "apiVersion": f"{_TRAINER}/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": _metadata(name),
        "spec": {
            "mlPolicy": {"numNodes": count, "torch": {"numProcPerNode": 1}},
            "template": {"spec": _job_set(config, name, words)},
        },
    }
    job = {
        "apiVersion": f"{_TRAINER}/v1alpha1",
        "kind": "TrainJob",
        "metadata": _metadata(name),
        "spec": {
            "runtimeRef": {"apiGroup": _TRAINER, "kind": "TrainingRuntime", "name": name},
            "trainer": {"numNodes": count},
        },
    }
    return [(runtimes(namespace), runtime), (resource("TrainJob", namespace), job)]


def _job_set(config: JobConfig, name: str, words: Sequence[str]) -> Json:
    template = {
        "metadata": {"labels": {f"{_TRAINER}/trainjob-ancestor-step": "trainer"}},
        "spec": {"backoffLimit": 0, "template": _pod(config, name, _torchrun(words), "Never")},
    }
    return {"failurePolicy": {"maxRestarts": RESTARTS}, "replicatedJobs": [{"name": "node", "template": template}]}


def _pytorch_job(config: JobConfig, name: str, words: Sequence[str], count: int) -> Json:
    # The operator gives these three to every version of itself; the kubelet puts them into the arguments.
    where = ["--node-rank=$(RANK)", "--master-addr=$(MASTER_ADDR)", "--master-port=$(MASTER_PORT)"]
    command = _torchrun(words, f"--nnodes={count}", "--nproc-per-node=1", *where)
    pod = _pod(config, name, command, None)
    replicas = {"Master": 1, "Worker": count - 1}
    return {
        "apiVersion": f"{_OPERATOR}/v1",
        "kind": "PyTorchJob",
        "metadata": _metadata(name),
        "spec": {
            "runPolicy": {"backoffLimit": RESTARTS, "cleanPodPolicy": "Running"},
            "pytorchReplicaSpecs": {
                role: {"replicas": number, "restartPolicy": "OnFailure", "template": pod}
                for role, number in replicas.items()
                if number
            },
        },
    }


def _torchrun(words: Sequence[str], *options: str) -> list[str]:
    """torchrun as a module: what is not given as an option it reads from the environment (PET_...)."""
    return ["python", "-m", "torch.distributed.run", *options, "-m", "holdfast", "train", *words]


def _metadata(name: str) -> Json:
    return {"name": name, "labels": _labels(name)}


def _labels(name: str) -> dict[str, str]:
    return {_LABEL: "holdfast-train", "app.kubernetes.io/instance": name}


def selector(name: str) -> str:
    """Finds the pods of a job."""
    return ",".join(f"{key}={value}" for key, value in _labels(name).items())


def _pod(config: JobConfig, name: str, command: Sequence[str], restarts: str | None) -> Json:
    spec: Json = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(config, command)],
        "volumes": [
            {"name": "training", "persistentVolumeClaim": {"claimName": config.claim}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        ],
    }
    if restarts is not None:
        spec["restartPolicy"] = restarts
    if config.node_selector:
        spec["nodeSelector"] = config.node_selector
    if config.tolerations:
        spec["tolerations"] = [_toleration(one) for one in config.tolerations]
    return {"metadata": {"labels": _labels(name)}, "spec": spec}


def _container(config: JobConfig, command: Sequence[str]) -> Json:
    gpus: dict[str, Any] = {"nvidia.com/gpu": str(config.gpu)} if config.gpu else {}
    return {
        "name": _CONTAINER[config.kind],
        "image": config.image,
        "command": list(command[:3]),
        "args": list(command[3:]),
        "env": [{"name": GPUS, "value": str(config.gpu)}],
        "resources": {
            "requests": {"cpu": config.cpu, "memory": config.memory, **gpus},
            "limits": {"memory": config.memory, **gpus},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "training", "mountPath": config.path},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }


def _toleration(taint: PodToleration) -> Json:
    found = {"key": taint.key, "operator": "Equal" if taint.value else "Exists", "value": taint.value}
    return {key: value for key, value in {**found, "effect": taint.effect}.items() if value}


def ended(found: Json) -> str | None:
    """The condition by which a job has ended, one of `DONE` or `FAILED`; None: it goes on."""
    true = [one["type"] for one in _conditions(found) if one.get("status") == "True"]
    return next((name for name in (FAILED, *DONE) if name in true), None)


def state(found: Json) -> str:
    """How a job is, in words: its newest condition and what its pods do."""
    true = [one["type"] for one in _conditions(found) if one.get("status") == "True"]
    status = found.get("status") or {}
    counted = [*(status.get("jobsStatus") or []), *(status.get("replicaStatuses") or {}).values()]
    pods = {key: sum(int(one.get(key) or 0) for one in counted) for key in ("active", "succeeded", "failed")}
    told = [f"{number} {key}" for key, number in pods.items() if number]
    return ", ".join([true[-1] if true else "Created", *told])


def reason(found: Json) -> str:
    """Why a job failed, in the words of its controller."""
    failed = [one for one in _conditions(found) if one["type"] == FAILED and one.get("status") == "True"]
    words = [str(failed[-1].get(key) or "") for key in ("reason", "message")] if failed else []
    return ": ".join(word for word in words if word)[:500] or "no reason is given"


def _conditions(found: Json) -> list[Json]:
    return list((found.get("status") or {}).get("conditions") or [])
