import json

import pytest

from holdfast.compute import GPUS
from holdfast.model.train.job import DONE, FAILED, JobConfig, ended, objects, reason, selector, state

WORDS = ["--snapshot=/training/a/snapshot", "--out=/training/a/model"]


def config(kind, **changes):
    return JobConfig(kind=kind, image="registry.example/model:1", claim="training", path="/training", **changes)


def made(kind, count=3, **changes):
    return [body for _, body in objects(config(kind, **changes), "holdfast-train-a", "ml", WORDS, count)]


def pods(kind, **changes):
    *_, last = made(kind, **changes)
    if kind == "TrainJob":
        (replicated,) = made(kind, **changes)[0]["spec"]["template"]["spec"]["replicatedJobs"]
        return [replicated["template"]["spec"]["template"]]
    return [replica["template"] for replica in last["spec"]["pytorchReplicaSpecs"].values()]


def test_a_train_job_has_a_runtime_of_its_own_and_as_many_nodes_as_workers():
    runtime, job = made("TrainJob")
    assert job["spec"]["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "TrainingRuntime",
        "name": runtime["metadata"]["name"],
    }
    assert runtime["spec"]["mlPolicy"] == {"numNodes": 3, "torch": {"numProcPerNode": 1}}
    (pod,) = pods("TrainJob")
    (container,) = pod["spec"]["containers"]
    assert container["name"] == "node"
    assert container["command"] == ["python", "-m", "torch.distributed.run"]
    assert container["args"] == ["-m", "holdfast", "train", *WORDS]


def test_a_pytorch_job_has_a_master_and_the_other_workers_and_hands_on_where_the_master_is():
    (job,) = made("PyTorchJob")
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert {role: one["replicas"] for role, one in replicas.items()} == {"Master": 1, "Worker": 2}
    (container,) = replicas["Worker"]["template"]["spec"]["containers"]
    assert container["name"] == "pytorch"
    where = ["--node-rank=$(RANK)", "--master-addr=$(MASTER_ADDR)", "--master-port=$(MASTER_PORT)"]
    assert container["args"] == ["--nnodes=3", "--nproc-per-node=1", *where, "-m", "holdfast", "train", *WORDS]


def test_a_pytorch_job_of_one_has_a_master_alone():
    (job,) = made("PyTorchJob", count=1)
    assert set(job["spec"]["pytorchReplicaSpecs"]) == {"Master"}


@pytest.mark.parametrize("kind", ["TrainJob", "PyTorchJob"])
def test_every_pod_is_hardened_and_writes_to_its_volumes_alone(kind):
    for pod in pods(kind):
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/training", "/tmp", "/dev/shm"}
        assert {"persistentVolumeClaim": {"claimName": "training"}, "name": "training"} in spec["volumes"]
        assert selector("holdfast-train-a") == ",".join(f"{k}={v}" for k, v in pod["metadata"]["labels"].items())


@pytest.mark.parametrize("kind", ["TrainJob", "PyTorchJob"])
def test_size_gpu_and_nodes_reach_every_pod(kind):
    taint = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    asked = {"cpu": "8", "memory": "32G", "gpu": 1, "node_selector": {"pool": "gpu"}, "tolerations": [taint]}
    for pod in pods(kind, **asked):
        (container,) = pod["spec"]["containers"]
        assert container["resources"] == {
            "requests": {"cpu": "8", "memory": "32G", "nvidia.com/gpu": "1"},
            "limits": {"memory": "32G", "nvidia.com/gpu": "1"},
        }
        assert container["env"] == [{"name": GPUS, "value": "1"}]
        assert pod["spec"]["nodeSelector"] == {"pool": "gpu"}
        assert pod["spec"]["tolerations"] == [{"operator": "Exists", **taint}]


def test_what_is_sent_is_json():
    for kind in ("TrainJob", "PyTorchJob"):
        assert json.loads(json.dumps(made(kind))) == made(kind)


def with_conditions(*types, **status):
    return {"status": {"conditions": [{"type": name, "status": "True"} for name in types], **status}}


@pytest.mark.parametrize("name", [FAILED, *DONE])
def test_a_condition_ends_a_job(name):
    assert ended(with_conditions("Created", name)) == name


def test_a_job_goes_on_without_such_a_condition():
    found = with_conditions("Created", "Running")
    found["status"]["conditions"].append({"type": FAILED, "status": "False"})
    assert ended(found) is None
    assert ended({}) is None


def test_the_state_of_a_job_in_words():
    assert state({}) == "Created"
    replicas = {"Master": {"active": 1}, "Worker": {"active": 2, "failed": 1}}
    assert state(with_conditions("Created", "Running", replicaStatuses=replicas)) == "Running, 3 active, 1 failed"
    jobs = [{"name": "node", "active": 2, "succeeded": 0}]
    assert state({"status": {"jobsStatus": jobs}}) == "Created, 2 active"


def test_the_reason_is_the_controllers():
    found = with_conditions("Created", FAILED)
    assert reason(found) == "no reason is given"
    found["status"]["conditions"][-1] |= {"reason": "BackoffLimit", "message": "a pod failed too often"}
    assert reason(found) == "BackoffLimit: a pod failed too often"
