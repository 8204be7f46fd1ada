"""Jobs that train, at a real kube-apiserver; a thread plays the controller that starts their pods."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from holdfast.artifacts import documents as d
from holdfast.artifacts.folder import Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import ArtifactError, ClusterError, IntegrityError
from holdfast.kubernetes.api import ConflictError, Kube, MissingError, Resource
from holdfast.model.train import launch, step
from holdfast.model.train.checkpoint import StoppedError
from holdfast.model.train.job import JobConfig, objects, resource, runtimes
from holdfast.model.train.launch import train_on_cluster
from holdfast.model.train.workers import TrainInputs
from holdfast.processes import reserved_ports
from holdfast.workload.schema import TrainConfig
from tests.manifests.kubelet import Cluster, Pod, skip_without_an_engine
from tests.manifests.test_api_server import lost
from tests.serving.rollout.cluster.conftest import CRDS, OPEN, definition, served, wait_for

RIGHTS = Path(__file__).parents[2] / "manifests" / "base" / "training" / "rights.yaml"
COUNTED = {"type": "object", "properties": {"replicas": {"type": "integer"}, "template": OPEN}}
SPECS = {
    ("trainer.kubeflow.org", "v1alpha1", "TrainJob"): {
        "type": "object",
        "required": ["runtimeRef"],
        "properties": {
            "runtimeRef": {
                "type": "object",
                "required": ["name"],
                "properties": {name: {"type": "string"} for name in ("apiGroup", "kind", "name")},
            },
            "trainer": {"type": "object", "properties": {"numNodes": {"type": "integer"}}},
        },
    },
    ("trainer.kubeflow.org", "v1alpha1", "TrainingRuntime"): {
        "type": "object",
        "properties": {
            "mlPolicy": {
                "type": "object",
                "properties": {
                    "numNodes": {"type": "integer"},
                    "torch": {
                        "type": "object",
                        "properties": {"numProcPerNode": {"x-kubernetes-int-or-string": True}},
                    },
                },
            },
            "template": {"type": "object", "properties": {"spec": OPEN}},
        },
    },
    ("kubeflow.org", "v1", "PyTorchJob"): {
        "type": "object",
        "required": ["pytorchReplicaSpecs"],
        "properties": {
            "runPolicy": {
                "type": "object",
                "properties": {"backoffLimit": {"type": "integer"}, "cleanPodPolicy": {"type": "string"}},
            },
            "pytorchReplicaSpecs": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {**COUNTED["properties"], "restartPolicy": {"type": "string"}},
                },
            },
        },
    },
}
"""What the definitions of both controllers have of what is used; other fields are not kept, as there."""
KINDS = ("TrainJob", "PyTorchJob")


@pytest.fixture(scope="module")
def server(seldon):
    """The API server with the definitions of jobs."""
    client = seldon.kube()
    for (group, version, kind), spec in SPECS.items():
        names = {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower()}
        with contextlib.suppress(ConflictError):
            client.create(CRDS, definition(group, version, names, spec, {"subresources": {"status": {}}}))
        one = Resource(group, version, f"{kind.lower()}s", "default")
        wait_for(lambda one=one: served(client, one), 30, kind)
    client.close()
    return seldon


class Recorded(Kube):
    """A client that keeps what it called."""

    def __init__(self, access):
        super().__init__(access)
        self.calls = set()

    def _call(self, method, path, body=None, kind="application/json"):
        verb = {"GET": "get", "POST": "create", "DELETE": "delete"}[method]
        self.calls.add((path.partition("/namespaces/")[2].split("/")[1], verb))
        return super()._call(method, path, body, kind)


@pytest.fixture
def account(server, kube, namespace):
    """A client with the rights of the manifest and no others."""
    rbac = "rbac.authorization.k8s.io"
    accounts = Resource("", "v1", "serviceaccounts", namespace)
    kube.create(accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "pipeline-runner"}})
    for body in yaml.safe_load_all(RIGHTS.read_text()):
        body["metadata"]["namespace"] = namespace  # as kustomize does for the namespace of an overlay
        for subject in body.get("subjects", ()):
            subject["namespace"] = namespace
        kube.create(Resource(rbac, "v1", f"{body['kind'].lower()}s", namespace), body)
    tokens = Resource("", "v1", "serviceaccounts/pipeline-runner/token", namespace)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    access = server.kube(kube.create(tokens, request)["status"]["token"]).access
    client = Recorded(type(access)(access.server, access.trust, access.token, namespace=namespace))
    yield client
    client.close()


@contextlib.contextmanager
def controller(server, namespace, kind, act):
    """Calls `act(job)` for each job that has not ended; what it returns is the type and reason of a condition."""
    client, jobs, stop = server.kube(), resource(kind, namespace), threading.Event()

    def loop():
        while not stop.is_set():
            for job in client.list(jobs):
                if not job.get("status"):
                    name, why = act(job)
                    condition = {"type": name, "status": "True", "reason": why, "message": "m"}
                    with contextlib.suppress(MissingError):
                        client.merge(jobs, job["metadata"]["name"], {"status": {"conditions": [condition]}}, "status")
            time.sleep(0.02)
        client.close()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


SOME, THREAT = d.Count(k=9, n=10), d.ThreatModel(norm="linf", epsilon="8/255", unit="input units [0, 1]")
MODEL = d.Model(
    name="toy", architecture=d.Architecture(name="cnn", parameters=1),
    input=d.InputSpec(modality="image", shape=(1, 8, 8), dtype="float32"), classes=("a", "b"), threat=THREAT, recipe={},
    seed=0, threads=1, device="cpu", best_epoch=0, clean=SOME, robust=SOME,
)  # fmt: skip
CONFIG = TrainConfig.model_validate(
    {"name": "toy", "network": {"architecture": "cnn"}, "threat": {"norm": "linf", "epsilon": "8/255", "unit": "u"},
     "train": {"workers": 2}}
)  # fmt: skip


class Launch:
    """A launch on a volume that is a folder."""

    def __init__(self, folder, account, kind):
        self.volume, self.out, self.account = folder / "volume", folder / "out", account
        self.job = JobConfig(kind=kind, image="registry.example/model:1", claim="training", path=str(self.volume))
        self.snapshot = save(folder / "snapshot", d.Baseline(name="rows", present=False), {"rows.npz": b"rows"})

    def run(self, **changes):
        inputs = TrainInputs(Ref(self.snapshot.folder, self.snapshot.digest))
        given = {"config": CONFIG, "settings": Compute(0, "cpu", 1), "job": self.job, "kube": self.account}
        return train_on_cluster(inputs, self.out, **{**given, **changes})

    def train(self, job):
        """What the pods would do."""
        self.rows = (self.volume / job["metadata"]["name"] / "snapshot" / "rows.npz").read_bytes()
        save(self.volume / job["metadata"]["name"] / "model", MODEL, {"weights.safetensors": b"weights"})
        return {"TrainJob": "Complete", "PyTorchJob": "Succeeded"}[self.job.kind], "done"


@pytest.fixture(params=KINDS)
def launched(request, tmp_path, account, monkeypatch):
    monkeypatch.setattr(launch, "LOOK_SECONDS", 0.05)
    return Launch(tmp_path, account, request.param)


def test_a_job_trains_and_leaves_nothing_behind(launched, server, kube, namespace):
    with controller(server, namespace, launched.job.kind, launched.train):
        model = launched.run()
    assert launched.rows == b"rows"
    assert load(launched.out, d.Model).digest == model.digest
    assert (launched.out / "weights.safetensors").read_bytes() == b"weights"
    assert kube.list(resource(launched.job.kind, namespace)) == []
    assert kube.list(runtimes(namespace)) == []
    assert list(launched.volume.iterdir()) == []


def test_the_step_calls_what_its_rights_allow_and_they_allow_no_more(launched, server, namespace):
    with controller(server, namespace, launched.job.kind, launched.train):
        launched.run()
    (role,) = [body for body in yaml.safe_load_all(RIGHTS.read_text()) if body["kind"] == "Role"]
    allowed = {(plural, verb) for rule in role["rules"] for plural in rule["resources"] for verb in rule["verbs"]}
    of_kind = {"TrainJob": ("trainjobs", "trainingruntimes"), "PyTorchJob": ("pytorchjobs",)}[launched.job.kind]
    assert launched.account.calls == {(plural, verb) for plural, verb in allowed if plural in of_kind}
    with pytest.raises(ClusterError, match="forbidden"):
        launched.account.list(resource(launched.job.kind, namespace))


def test_the_policy_chooses_the_pods_of_jobs_and_the_server_takes_it(kube, namespace):
    body = yaml.safe_load((RIGHTS.parent / "network.yaml").read_text())
    chosen = body["spec"]["podSelector"]["matchLabels"]
    runtime, _ = objects(JobConfig(image="i", claim="c"), "n", namespace, [], 2)
    assert all(chosen.items() <= pod["metadata"]["labels"].items() for pod in pods_of(runtime[1]))
    kube.create(Resource("networking.k8s.io", "v1", "networkpolicies", namespace), body)


def test_the_server_keeps_every_field_of_the_job_and_of_its_pods(launched, server, kube, namespace):
    seen = []

    def act(job):
        seen.append(job)
        seen.extend(kube.list(runtimes(namespace)))
        return launched.train(job)

    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "objects", lambda *given: made.extend(objects(*given)) or made)
        with controller(server, namespace, launched.job.kind, act):
            launched.run()
    by_kind = {body["kind"]: body for body in seen}
    for _, body in made:
        assert list(lost(body, by_kind[body["kind"]])) == []
        for pod in pods_of(body):
            whole = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "p", **pod["metadata"]},
                "spec": pod["spec"],
            }
            path = f"{Resource('', 'v1', 'pods', namespace).path()}?dryRun=All"
            assert list(lost(whole, kube._call("POST", path, whole))) == []


def pods_of(value):
    """The pod templates in an object."""
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield value
        for part in value.values():
            yield from pods_of(part)
    if isinstance(value, list):
        for part in value:
            yield from pods_of(part)


def test_a_job_that_fails_is_named_with_its_reason_and_replaced_by_the_next_try(launched, server, kube, namespace):
    with (
        controller(server, namespace, launched.job.kind, lambda job: ("Failed", "BackoffLimitExceeded")),
        pytest.raises(ClusterError, match=r"failed: BackoffLimitExceeded: m; .* kubectl logs -n t-.* -l app.kub"),
    ):
        launched.run()
    (failed,) = kube.list(resource(launched.job.kind, namespace))
    assert not launched.out.exists()
    with controller(server, namespace, launched.job.kind, launched.train):
        launched.run()
    assert launched.out.exists()
    assert failed["metadata"]["name"].startswith("holdfast-train-")


def test_a_job_that_is_done_and_whose_model_was_taken_before_is_replaced(
    launched, server, kube, namespace, monkeypatch
):
    monkeypatch.setattr(step, "APPEARS_SECONDS", 0.1)
    jobs = resource(launched.job.kind, namespace)

    def nothing(job):
        return {"TrainJob": "Complete"}.get(launched.job.kind, "Succeeded"), "done"

    with (
        controller(server, namespace, launched.job.kind, nothing),
        pytest.raises(ArtifactError),
    ):
        launched.run()
    (left,) = kube.list(jobs)
    with controller(server, namespace, launched.job.kind, launched.train):
        launched.run()
    assert launched.out.exists()
    assert kube.list(jobs) == []
    assert left["status"]["conditions"][-1]["reason"] == "done"


def test_a_step_that_is_told_to_stop_deletes_the_job_and_keeps_its_checkpoint(launched, server, kube, namespace):
    def act(job):
        place = launched.volume / job["metadata"]["name"] / "checkpoint"
        place.mkdir(exist_ok=True)
        (place / "x.checkpoint").write_bytes(b"x")
        os.kill(os.getpid(), 15)
        return "Running", "r"

    with (
        controller(server, namespace, launched.job.kind, act),
        pytest.raises(StoppedError, match="was deleted and its checkpoint kept"),
    ):
        launched.run()
    assert kube.list(resource(launched.job.kind, namespace)) == []
    assert len(list(launched.volume.glob("*/checkpoint/x.checkpoint"))) == 1


def test_a_job_that_another_try_left_running_is_waited_for(launched, server, kube, namespace, capsys):
    started = threading.Event()

    def act(job):
        started.set()
        time.sleep(0.5)
        return launched.train(job)

    with controller(server, namespace, launched.job.kind, act):
        made = launch._Launch._submit
        with pytest.MonkeyPatch.context() as patch:

            def submit(self):
                made(self)
                raise KeyboardInterrupt  # as a pod that is gone

            patch.setattr(launch._Launch, "_submit", submit)
            with pytest.raises(KeyboardInterrupt):
                launched.run()
        assert started.wait(5)
        launched.run()
    assert "is there already: waiting for it" in capsys.readouterr().err
    assert launched.out.exists()


def test_a_job_that_someone_deleted_is_an_error(launched, server, kube, namespace):
    def act(job):
        kube.delete(resource(launched.job.kind, namespace), job["metadata"]["name"])
        return "Running", "r"

    with (
        controller(server, namespace, launched.job.kind, act),
        pytest.raises(ClusterError, match="is not there any more: it was deleted"),
    ):
        launched.run()


def test_a_model_whose_bytes_were_changed_on_the_volume_is_refused(launched, server, namespace):
    def act(job):
        ended = launched.train(job)
        (launched.volume / job["metadata"]["name"] / "model" / "weights.safetensors").write_bytes(b"others!")
        return ended

    with (
        controller(server, namespace, launched.job.kind, act),
        pytest.raises(IntegrityError, match="altered after the artifact was written"),
    ):
        launched.run()
    assert not launched.out.exists()


class Nodes:
    """What a controller and two nodes do for a job: torchrun on each, and all again when one has ended badly."""

    def __init__(self, runtime, master):
        (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
        (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
        self.words = [sys.executable, *container["command"][1:], *container["args"]]
        self.count, self.master, self.starts = runtime["spec"]["mlPolicy"]["numNodes"], master, 0

    def start(self):
        """The environment is that of Kubeflow Trainer's plug-in for torch."""
        self.starts += 1
        shared = {"PET_NNODES": self.count, "PET_NPROC_PER_NODE": 1, "PET_MASTER_ADDR": "127.0.0.1"}
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        env |= {name: str(value) for name, value in {**shared, "PET_MASTER_PORT": self.master}.items()}
        return [
            subprocess.Popen(self.words, env={**env, "PET_NODE_RANK": str(rank)}, start_new_session=True)
            for rank in range(self.count)
        ]

    def run(self, meanwhile):
        """`meanwhile(nodes)` is called while the first start runs."""
        nodes = self.start()
        meanwhile(nodes)
        while any(node.wait() for node in nodes):
            assert self.starts < 3
            nodes = self.start()


@pytest.fixture
def digits(tmp_path):
    """A snapshot and how to train on it in two processes."""
    from sklearn.datasets import load_digits

    from tests.model.conftest import image_snapshot

    data = load_digits()
    rows = image_snapshot(tmp_path / "digits", data.images[:, None].astype("uint8"), data.target, train=1437)
    recipe = {"recipe": "pgd", "epochs": 4, "attack_steps": 4, "workers": 2, "batch": 64, "learning_rate": 0.01}
    threat = {"norm": "linf", "epsilon": "1/10", "unit": "u"}
    network = {"architecture": "cnn", "arguments": {"width": 4}}
    config = TrainConfig.model_validate({"name": "digits", "network": network, "threat": threat, "train": recipe})
    return Ref(rows.folder), config


@pytest.mark.nightly
def test_two_nodes_train_by_torchrun_and_go_on_after_one_was_killed(server, kube, account, namespace, digits, tmp_path):
    from holdfast.model.train.step import train

    job = JobConfig(image="registry.example/model:1", claim="training", path=str(tmp_path / "volume"))
    (rows, config), nodes = digits, []

    def kill_one(started):
        wait_for(lambda: list((tmp_path / "volume").glob("*/checkpoint/*.checkpoint")), 240, "a checkpoint")
        # As the end of a pod: torchrun, and the process that it started in a session of its own.
        tasks = Path(f"/proc/{started[1].pid}/task").glob("*/children")
        for pid in (*map(int, " ".join(path.read_text() for path in tasks).split()), started[1].pid):
            os.kill(pid, 9)

    def act(found):
        (runtime,) = kube.list(runtimes(namespace))
        with reserved_ports(1) as (port,):
            nodes.append(Nodes(runtime, port))
        nodes[0].run(kill_one)
        return "Complete", "done"

    settings = Compute(0, "cpu", 1)
    with controller(server, namespace, "TrainJob", act):
        made = train_on_cluster(
            TrainInputs(rows), tmp_path / "out", config=config, settings=settings, job=job, kube=account
        )
    assert nodes[0].starts == 2
    whole = train(rows, tmp_path / "one", scan=None, config=config, settings=settings, checkpoint=None)
    assert made.digest == whole.digest


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_two_containers_train_as_their_pods_are_written(kind, server, kube, account, namespace, digits, tmp_path):
    skip_without_an_engine()
    for path in (tmp_path, *(path for path in tmp_path.parents if path.name.startswith("pytest-"))):
        path.chmod(0o755)
    cluster = Cluster(tmp_path, namespace)
    claim, (rows, config) = cluster.claim("training"), digits
    job = JobConfig(kind=kind, image="holdfast/model:0.1.0", claim="training", path=str(claim), memory="2Gi")
    codes = []

    def act(found):
        holder = found if kind == "PyTorchJob" else kube.list(runtimes(namespace))[0]
        specs = [pod["spec"] for pod in pods_of(holder)]
        with reserved_ports(1) as (port,):
            nodes = [
                Pod(cluster, specs[-1], specs[-1]["containers"][0], given_to(kind, rank, port), network="host").start()
                for rank in range(2)
            ]
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(subprocess.Popen(words, cwd=tmp_path)) for words in nodes]
            codes.extend(node.wait(400) for node in started)
        return ("Failed", str(codes)) if any(codes) else ({"TrainJob": "Complete"}.get(kind, "Succeeded"), "done")

    settings = Compute(0, "cpu", 1)
    with controller(server, namespace, kind, act):
        made = train_on_cluster(
            TrainInputs(rows), tmp_path / "out", config=config, settings=settings, job=job, kube=account
        )
    assert codes == [0, 0]
    assert made.document.recipe["workers"] == 2


def given_to(kind, rank, port):
    """The environment that a controller gives to one of two pods."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if kind == "PyTorchJob":
        found = {**where, "WORLD_SIZE": 2, "RANK": rank}
    else:
        found = {"NNODES": 2, "NPROC_PER_NODE": 1, "NODE_RANK": rank, **where}
        found = {f"PET_{name}": value for name, value in found.items()}
    return {name: str(value) for name, value in found.items()}
