"""Pods of the overlays are started as they are written: they must come up and do their work."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest
import yaml

from holdfast import registry
from holdfast.attestation.keys import read_signer
from holdfast.kubernetes.api import Resource
from holdfast.serving.rollout.cluster.kserve import services_in
from tests.attestation.versions import register_signed
from tests.manifests.kubelet import Cluster, Pod, skip_without_an_engine
from tests.manifests.rendered import MANIFESTS, data_of, everything, of_kind, overlay, pods_of
from tests.serving.conftest import register_versions

TENSOR = {"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.5] * 64}
RIGHTS = {"ServiceAccount": ("", "v1", "serviceaccounts")} | {
    kind: ("rbac.authorization.k8s.io", "v1", f"{kind.lower()}s") for kind in ("Role", "RoleBinding")
}


@pytest.fixture(scope="module", autouse=True)
def engine():
    skip_without_an_engine()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answered(url, body=None, seconds=90):
    deadline = time.monotonic() + seconds
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=5) as reply:
                return reply.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextmanager
def mlflow_at(folder):
    """A real MLflow server that stores artifacts for its clients; its address."""
    port = free_port()
    words = [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/artifacts"]
    command = [sys.executable, "-m", "mlflow", "server", *words, "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            answered(f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    """An MLflow server with three versions; none is champion."""
    with mlflow_at(tmp_path_factory.mktemp("mlflow")) as uri:
        register_versions(uri, tmp_path_factory.mktemp("packages"))
        yield uri


@pytest.fixture
def cluster(tmp_path, mlflow):
    """The settings of the overlay `dev` for this model and this MLflow."""
    (name,) = (key for key in of_kind("dev", "ConfigMap") if key.startswith("holdfast-rollout-"))
    data = {**data_of("dev", "holdfast-rollout"), "model": "tiny", "tracking": mlflow}
    tmp_path.chmod(0o755)
    for path in tmp_path.parents:
        if path.name.startswith("pytest-"):
            path.chmod(0o755)
    return Cluster(tmp_path, "models", {name: data})


def pod(cluster, name, **more):
    (spec,) = pods_of(everything()[name])
    return Pod(cluster, spec, spec["containers"][0], **more)


def dev(kind, name):
    return next(pods_of(of_kind("dev", kind)[name]))


def started(cluster, kind, name, **more):
    spec = dev(kind, name)
    return Pod(cluster, spec, spec["containers"][0], **more)


@contextmanager
def running(pod, *, seconds=60):
    words = pod.start()
    (name,) = (word.partition("=")[2] for word in words if word.startswith("--name=pod-"))
    log = pod.cluster.folder / f"{name}.log"
    with log.open("wb") as out, subprocess.Popen(words, cwd=pod.cluster.folder, stdout=out, stderr=out) as process:
        try:
            yield process, log
        finally:
            subprocess.run([words[0], "stop", "--time=30", name], capture_output=True, check=False, timeout=seconds)
            process.wait(seconds)


def test_the_first_version_is_copied_and_becomes_the_champion(cluster, mlflow):
    registry.set_alias(mlflow, "tiny", "candidate", 1)
    done = started(cluster, "CronJob", "holdfast-first", network="host").run()
    assert done.returncode == 0, done.stderr
    digest = json.loads(done.stdout)["digest"]
    assert (cluster.claim("holdfast-models") / "sha256" / digest / "bundle" / "bundle.json").is_file()
    assert registry.aliases(mlflow, "tiny")["champion"] == 1


@pytest.fixture
def stored(cluster, mlflow):
    """The folder of a version in the store, which another user wrote."""
    from holdfast.serving.store import put

    return put(mlflow, "tiny", 2, cluster.claim("holdfast-models")).folder


@pytest.mark.parametrize("kind", ["KServe", "Core 1"])
def test_a_predictor_answers_without_a_network_but_its_own(cluster, stored, kind):
    port, grpc = free_port(), free_port()
    operators = {"MLSERVER_HTTP_PORT": str(port), "MLSERVER_GRPC_PORT": str(grpc), "MLSERVER_MODEL_URI": "/mnt/models"}
    name, more = (
        ("ServingRuntime/holdfast", {"Name": "model"}) if kind == "KServe" else ("SeldonDeployment/model", operators)
    )
    made = pod(cluster, name, more=more, extra=((stored, "/mnt/models"),), network="host")
    if kind == "KServe":
        # The node of the test has these ports in use perhaps; a pod has its own.
        moved = {"--http-port=8080": f"--http-port={port}", "--grpc-port=8081": f"--grpc-port={grpc}"}
        args = [moved.get(word, word) for word in made.container["args"]]
        made = Pod(cluster, made.spec, {**made.container, "args": args}, made.more, made.extra, made.network)
    model = "model" if kind == "KServe" else "classifier"
    with running(made) as (process, log):
        answered(f"http://127.0.0.1:{port}/v2/models/{model}/ready")
        url = f"http://127.0.0.1:{port}/v2/models/{model}/infer"
        reply = json.loads(answered(url, json.dumps({"inputs": [TENSOR]}).encode()))
        assert [output["name"] for output in reply["outputs"]] == ["label", "probabilities"]
    assert process.returncode == 0, log.read_text()


def test_a_predictor_whose_bytes_were_altered_ends(cluster, stored):
    with (stored / "bundle" / "model" / "weights.safetensors").open("r+b") as file:
        file.write(b"\0")
    done = pod(cluster, "ServingRuntime/holdfast", more={"Name": "model"}, extra=((stored, "/mnt/models"),)).run()
    assert done.returncode == 1
    assert "altered" in done.stderr


def test_a_server_of_core_2_loads_what_its_agent_brought(cluster, stored, tmp_path):
    models, port = tmp_path / "agent", free_port()
    shutil.copytree(stored, models / "model-main_1")
    for path in (models, *models.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    config = {
        "HTTP_PORT": port,
        "GRPC_PORT": free_port(),
        "METRICS_PORT": free_port(),
        "MODELS_DIR": "/mnt/agent/models",
    }
    more = {f"MLSERVER_{key}": str(value) for key, value in config.items()} | {
        "MLSERVER_LOAD_MODELS_AT_STARTUP": "false"
    }
    made = pod(cluster, "Server/holdfast", more=more, extra=((models, "/mnt/agent/models"),), network="host")
    url = f"http://127.0.0.1:{port}/v2"
    with running(made) as (process, log):
        answered(f"{url}/health/live")
        answered(f"{url}/repository/models/tiny/load", b"{}")
        reply = json.loads(answered(f"{url}/models/tiny/infer", json.dumps({"inputs": [TENSOR]}).encode()))
        assert [output["name"] for output in reply["outputs"]] == ["label", "probabilities"]
    assert process.returncode == 0, log.read_text()


@pytest.fixture
def verifying(cluster, tmp_path):
    """Starts the init container about a version of `digits`; the newest of two signed ones is released."""
    place = tmp_path / "signed"
    place.mkdir()
    with mlflow_at(place) as uri:
        register_signed(uri, place)
        registry.release(uri, "digits", 2, read_signer(str(place / "keys" / "release.pem")))
        trust = {file.name: file.read_text() for file in (place / "keys").iterdir() if file.suffix != ".pem"}

        def run(version):
            cluster.configmaps = {"holdfast-verify": {"tracking": uri}, "holdfast-trust": trust}
            cluster.annotations = {"holdfast/model": f"models:/digits/{version}"}
            spec = yaml.safe_load((MANIFESTS / "base" / "verify" / "init-container.yaml").read_text())
            spec = spec["spec"]["template"]["spec"]
            return Pod(cluster, spec, spec["initContainers"][0], network="host").run()

        yield run


def test_the_init_container_lets_the_newest_release_pass_and_no_other(verifying):
    done = verifying(2)
    assert done.returncode == 0, done.stderr
    done = verifying(1)
    assert done.returncode != 0
    assert "release statement" in done.stdout


@pytest.fixture
def in_cluster(cluster, seldon, kube, namespace):
    """The overlay's rights in a namespace of the real API server, and the pods' way to it."""
    for body in overlay("dev"):
        if body["kind"] in RIGHTS:
            moved = {**body, "metadata": {**body["metadata"], "namespace": namespace}}
            if body["kind"] == "RoleBinding":
                moved["subjects"] = [{**subject, "namespace": namespace} for subject in body["subjects"]]
            kube.create(Resource(*RIGHTS[body["kind"]], namespace), moved)
    cluster.namespace, cluster.authority = namespace, seldon.ca_file.read_text()
    host, port = seldon.url.removeprefix("https://").split(":")

    def account(name):
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        tokens = Resource("", "v1", f"serviceaccounts/{name}/token", namespace)
        cluster.token = kube.create(tokens, request)["status"]["token"]
        return {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}

    return account


def test_the_watchdog_looks_with_its_own_account(cluster, in_cluster):
    more = in_cluster("holdfast-rollout-watchdog")
    made = started(cluster, "CronJob", "holdfast-rollout-watchdog", more=more, network="host")
    done = made.run(without={"50": "1"})
    assert (done.returncode, done.stderr.strip()) == (0, "watchdog: 0 candidates taken out")


def test_without_an_approved_candidate_the_rollout_ends_well(cluster, in_cluster, mlflow):
    with registry_client(mlflow) as client:
        client.delete_registered_model_alias("tiny", "candidate")
    more = in_cluster("holdfast-rollout")
    done = started(cluster, "CronJob", "holdfast-rollout", more=more, network="host").run()
    assert (done.returncode, done.stderr.strip()) == (0, "rollout: tiny: nothing to do: no version is a candidate")


def registry_client(uri):
    from holdfast.registry.client import connected

    return connected(uri)


PLAN = """
shadow_requests: 20
steps: [50, {weight: 100, requests: 40, max_seconds: 120}]
step_requests: 20
max_step_seconds: 240
max_blind_seconds: 60
latency_limit_ms: 5000
"""


def test_the_rollout_takes_an_approved_candidate_to_its_promotion(
    cluster, in_cluster, mlflow, kube, operator, champion, knative, mesh
):
    champion("kserve")
    registry.promote(mlflow, "tiny", 1)
    registry.set_alias(mlflow, "tiny", "candidate", 2)
    candidate = {"minReplicas": 1, "model": {"modelFormat": {"name": "mlflow"}, "protocolVersion": "v2"}}
    candidate["model"]["storageUri"] = "pvc://holdfast-models/sha256/{digest}"
    target = {"namespace": "{namespace}", "kserve": {"service": "fraud", "candidate": candidate}, "metrics": knative}
    (settings,) = (data for name, data in cluster.configmaps.items() if name.startswith("holdfast-rollout"))
    settings |= {"target.yaml": json.dumps({**target, "probes": mesh.probes(20)}), "plan.yaml": PLAN}
    more = in_cluster("holdfast-rollout")
    with mesh.clients() as failed:
        done = started(cluster, "CronJob", "holdfast-rollout", more=more, network="host").run(540)
    assert done.returncode == 0, done.stderr
    assert "promoted" in done.stderr
    assert (registry.aliases(mlflow, "tiny")["champion"], failed) == (2, [])
    found = kube.get(services_in(cluster.namespace), "fraud")
    digest = next(one.tags["holdfast.model_digest"] for one in registry.versions(mlflow, "tiny") if one.number == 2)
    assert found["spec"]["predictor"]["model"]["storageUri"].endswith(digest)
    record = cluster.claim("holdfast-rollout") / "tiny-2" / "artifact.json"
    assert json.loads(record.read_text())["outcome"] == "promoted"
