"""The node, with everything that the overlay `prod` makes on it; skipped, with the reason, where no node can be had."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.attestation.chains import make_keys
from tests.images.engine import USER, Container, ContainerEnd
from tests.manifests.postgres import postgres_at
from tests.manifests.rendered import MANIFESTS, named, pods_of, render
from tests.manifests.test_api_server import OPERATORS
from tests.manifests.test_mlflow_pod import AUTH
from tests.node.node import ADDRESS, NAME, Node, missing, wait
from tests.node.node import named as name_addresses
from tests.serving.rollout.cluster.conftest import OPEN, crds, definition  # noqa: F401

IMAGES = tuple(f"localhost/holdfast/{name}:0.1.0" for name in ("data", "model", "serving", "mlflow"))
OLDER = {"CronJob": "batch/v1beta1", "PodDisruptionBudget": "policy/v1beta1"}
"""The same objects under the version that Kubernetes 1.20 knows."""
MODELS, RUNS = "models", "kubeflow"
LOGIN = {"username": "holdfast", "password": "a-long-password"}
TRACKING = f"http://holdfast-mlflow.{MODELS}:5000"


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    if reason := missing():
        pytest.skip(reason)
    for image in IMAGES:
        if subprocess.run(["podman", "image", "exists", image], check=False).returncode:
            pytest.skip(f"needs the image {image} (make images; manifests/components/mlflow/Containerfile)")
    folder = Path(tempfile.mkdtemp(prefix="holdfast-node-"))
    made = Node(folder)
    try:
        made.start(IMAGES)
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a private key of every role and the trust policy."""
    folder = tmp_path_factory.mktemp("keys") / "keys"
    make_keys(folder)
    return folder


def inlined(keys: Path) -> str:
    """The trust policy with the public keys as text in it."""
    policy = yaml.safe_load((keys / "trust.yaml").read_text())
    for rule in policy["roles"].values():
        rule["keys"] = [(keys / name).read_text() for name in rule["keys"]]
    return yaml.safe_dump(policy)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> dict[str, dict[str, Any]]:
    """A copy of the overlay `prod` with settings of its own, as the page has it; kind/name -> object."""
    copy = tmp_path_factory.mktemp("manifests") / "manifests"
    shutil.copytree(MANIFESTS, copy)
    settings = copy / "overlays" / "prod" / "settings"
    (settings / "trust.yaml").write_text(inlined(keys))
    return {named(body): body for body in render(copy / "overlays" / "prod")}


@pytest.fixture(scope="session")
def applied(node: Node, rendered: Mapping[str, dict[str, Any]], crds: list[dict[str, Any]], database: str) -> None:  # noqa: F811
    """All objects of the overlay, the definitions of their kinds, secrets and disks; MLflow is up and has a name."""
    kinds = [
        definition(group, version, {"kind": kind, "plural": plural, "singular": kind.lower()}, OPEN, {})
        for group, version, kind, plural in OPERATORS
    ]
    node.apply(*crds, *kinds)
    wait(lambda: "seldondeployments" in node.kubectl("api-resources", "--output=name"), 60, "the definitions")
    node.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in (MODELS, RUNS)))
    auth = AUTH.format(auth=database)
    node.apply(
        secret("holdfast-mlflow-server", {"backend-store-uri": database, "session-key": "s" * 32, "auth.ini": auth}),
        secret("holdfast-mlflow", LOGIN),
        *(disk(node.folder, body) for body in rendered.values() if body["kind"] == "PersistentVolumeClaim"),
    )
    node.apply(*(for_the_node(body) for body in rendered.values()))
    available(node, "holdfast-mlflow")
    name_addresses({TRACKING[7:-5]: node.get("service", "holdfast-mlflow", MODELS)["spec"]["clusterIP"]})
    os.environ.update({f"MLFLOW_TRACKING_{key.upper()}": value for key, value in LOGIN.items()})


@pytest.fixture(scope="session")
def database(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database outside the cluster."""
    with postgres_at(tmp_path_factory.mktemp("postgres"), ADDRESS) as address:
        yield address


def available(node: Node, deployment: str, seconds: float = 300) -> None:
    """Waits until a Deployment has its pods."""

    def ready() -> bool:
        found = node.get("deployment", deployment, MODELS)
        return found.get("status", {}).get("availableReplicas", 0) >= found["spec"]["replicas"]

    wait(ready, seconds, f"the pods of {deployment}", lambda: node.kubectl("describe", "pods", f"-n={MODELS}")[-4000:])


def secret(name: str, values: Mapping[str, str], namespace: str = MODELS) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data}


def disk(folder: Path, claim: Mapping[str, Any]) -> dict[str, Any]:
    """A disk of the node for a claim: root's folder, whose group the kubelet changes where a pod asks for it."""
    name = claim["metadata"]["name"]
    path = folder / "disks" / name
    path.mkdir(parents=True, exist_ok=True)
    here = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NAME]}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "claimRef": {"namespace": MODELS, "name": name},
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}},
        },
    }


def for_the_node(body: Mapping[str, Any]) -> dict[str, Any]:
    """As it is written, but for the version of its kind; images are on the node: there is no registry to pull from."""
    made: dict[str, Any] = json.loads(json.dumps({**body, "apiVersion": OLDER.get(body["kind"], body["apiVersion"])}))
    for pod in pods_of(made):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            if container.get("imagePullPolicy") == "Always":
                container["imagePullPolicy"] = "IfNotPresent"
    return made


class StepPods:
    """Pods of a compiled pipeline on the node: what Kubeflow's launcher brings is a folder of the node."""

    def __init__(self, node: Node) -> None:
        self.node, self.count = node, 0

    def __call__(self, container: Container) -> ContainerEnd:
        """Runs one to its end."""
        self.count += 1
        name = f"step-{self.count}"
        self.node.apply(step_pod(name, container))
        code, log = self.node.ended(name, RUNS, 500)
        self.node.kubectl("delete", "pod", name, f"--namespace={RUNS}", "--wait=false")
        return ContainerEnd(code, log, 0.0, None, None)


def step_pod(name: str, container: Container) -> dict[str, Any]:
    """The pod of a step, restricted as a container of the tests of images is."""
    mounts = [(f"v{number}", mount) for number, mount in enumerate(container.mounts)]
    security = {
        "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    box = {
        "name": "main",
        "image": container.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(container.command),
        "env": [{"name": key, "value": value} for key, value in container.env.items()],
        "resources": {"limits": {"memory": container.memory}, "requests": {"memory": "64Mi"}},
        "securityContext": security,
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            *({"name": key, "mountPath": one.target, "readOnly": one.readonly} for key, one in mounts),
        ],
    }
    volumes = [{"name": key, "hostPath": {"path": str(one.source)}} for key, one in mounts]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": RUNS, "labels": dict(container.labels)},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [box],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
        },
    }


def asked(url: str, body: bytes | None = None) -> bytes:
    """The answer to a request."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        return bytes(reply.read())
