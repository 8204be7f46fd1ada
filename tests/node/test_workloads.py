"""What Holdfast runs on a cluster, on a node with a kubelet: it starts as it is written, and does its work.

`make cluster-test` runs them; the tests build on each other, as the days of a model do.
"""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from holdfast import registry
from holdfast.attestation.demands import Demands
from holdfast.attestation.keys import read_signer
from holdfast.attestation.trust import read_trust
from tests.images.driver import StandInCluster
from tests.images.scene import RETRAIN, SIGNING, compile_for_containers, retrain, secrets_of
from tests.manifests.rendered import MANIFESTS, pods_of, render
from tests.node.conftest import LOGIN, MODELS, RUNS, TRACKING, StepPods, asked, available, disk, for_the_node
from tests.node.node import wait

pytestmark = pytest.mark.usefixtures("applied")


def test_mlflow_on_postgresql_asks_for_a_login_and_has_a_disk_of_its_own(node):
    ran = node.kubectl("exec", "deployment/holdfast-mlflow", f"-n={MODELS}", "--", "id")
    assert ran.startswith("uid=65532 gid=65532")
    with pytest.raises(OSError, match="401"):
        asked(f"{TRACKING}/api/2.0/mlflow/experiments/search?max_results=1")
    kept = node.kubectl("exec", "deployment/holdfast-mlflow", f"-n={MODELS}", "--", "ls", "-ldn", "/var/lib/mlflow")
    assert kept.startswith("drwxrws")
    assert kept.split()[2:4] == ["0", "65532"]


def holdfast(*words):
    """A command of ours from a person's machine."""
    return subprocess.run([sys.executable, "-m", "holdfast", *words], capture_output=True, text=True, check=False)


NOT_HERE = {
    "kind virtualservices.networking.istio.io", "kind workflows.argoproj.io", "Kubeflow Pipelines",
    "default storage class", "images",
}  # fmt: skip
"""What no node without a mesh, Kubeflow, a provisioner of disks and a registry has."""


def test_the_check_of_the_cluster_misses_what_is_not_here_and_nothing_else(node):
    words = ["--driver=seldon-v1", f"--namespace={MODELS}", f"--kubeconfig={node.folder}/kubeconfig"]
    done = holdfast("cluster", "check", *words, "--output=json")
    assert done.returncode == 3, done.stderr
    found = {row["name"]: row["state"] for row in json.loads(done.stdout)}
    assert {name for name, state in found.items() if state == "missing"} == NOT_HERE
    assert {name for name, state in found.items() if state not in ("ok", "missing")} == {"Prometheus"}


@pytest.fixture(scope="module")
def retrained(node, keys, tmp_path_factory, applied):
    """The digits' retraining, signed, each step a pod as it was compiled; the run's tasks by name."""
    folder = tmp_path_factory.mktemp("retrain")
    for path in (folder, *folder.parents[:2]):
        path.chmod(path.stat().st_mode | 0o055)
    (folder / "statements").mkdir()
    (folder / "statements").chmod(0o777)
    compile_for_containers(folder, signing=SIGNING)
    secrets = {**secrets_of(keys), "holdfast-mlflow": LOGIN}
    claims = {"statements": folder / "statements"}
    place = StandInCluster(folder / "run", secrets=secrets, claims=claims, start=StepPods(node))
    return retrain(folder, TRACKING, place)


def test_every_step_of_a_signed_retraining_ends_well_in_its_pod(retrained):
    done = {step.name: retrained[step.name].state for step in RETRAIN}
    logs = [task.ended.log[-3000:] for task in retrained.values() if task.state == "failed" and task.ended]
    assert done == dict.fromkeys(done, "succeeded"), logs
    assert retrained["gate"].parameters["verdict"] == "pass"


def test_what_the_pods_signed_is_all_that_a_reader_demands(retrained, keys, tmp_path):
    found = registry.fetch(TRACKING, "digits", 1, tmp_path / "bundle", Demands(read_trust(keys / "trust.yaml")))
    assert found.model.digest == retrained["train"].parameters["digest"]


def test_a_person_approves_it(retrained, keys):
    why = ["--by=Ana", "--reason=read the gate's table", f"--key={keys}/approver.pem", f"--trust={keys}/trust.yaml"]
    done = holdfast("approve", "digits@1", *why, f"--tracking={TRACKING}")
    assert done.returncode == 0, done.stderr


def started(node, rendered, name, more="1"):
    """Runs a CronJob's job now; its pod's exit code and log."""
    template = for_the_node(rendered[f"CronJob/{name}"])["spec"]["jobTemplate"]
    job = f"{name}-{more}"
    node.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job, "namespace": MODELS}, **template})
    wait(lambda: pods(node, f"job-name={job}") != [], 60, f"a pod of {job}")
    return node.ended(pods(node, f"job-name={job}")[0], MODELS)


def pods(node, selector):
    listed = node.kubectl("get", "pods", f"-n={MODELS}", f"--selector={selector}", "--output=json")
    return [one["metadata"]["name"] for one in json.loads(listed)["items"]] if listed else []


@pytest.fixture(scope="module")
def first(node, rendered, retrained):
    """What `holdfast-first` printed."""
    code, log = started(node, rendered, "holdfast-first")
    assert code == 0, log
    return json.loads(log.strip().splitlines()[-1])


def test_the_first_version_is_copied_to_the_store_and_becomes_the_champion(node, first, retrained):
    assert first["digest"] == retrained["train"].parameters["digest"]
    assert registry.aliases(TRACKING, "digits")["champion"] == 1
    assert (node.folder / "disks" / "holdfast-models" / "sha256" / first["digest"] / "model-settings.json").is_file()


def test_the_rollouts_job_finds_nothing_to_do_and_ends_well(node, rendered, first):
    code, log = started(node, rendered, "holdfast-rollout")
    assert (code, "nothing to do" in log) == (0, True), log


def test_the_watchdog_looks_with_its_own_token(node, rendered):
    code, log = started(node, rendered, "holdfast-rollout-watchdog")
    assert (code, "0 candidates taken out" in log) == (0, True), log


def test_the_schedule_starts_the_watchdog_by_itself(node):
    def of_the_schedule():
        names = pods(node, "app.kubernetes.io/name=holdfast-rollout-watchdog")
        return [name for name in names if re.fullmatch(r"holdfast-rollout-watchdog-\d{5,}-\w+", name)]

    wait(lambda: of_the_schedule() != [], 150, "a pod of the schedule")
    assert node.ended(of_the_schedule()[0], MODELS)[0] == 0


def test_the_predictor_answers_from_the_store(node, rendered, first):
    (spec,) = pods_of(for_the_node(rendered["SeldonDeployment/model"]))
    node.apply(as_the_operator_does(spec, first["digest"]))
    available(node, "predictor")
    (pod, _) = pods(node, "app=predictor")
    address = node.get("pod", pod, MODELS)["status"]["podIP"]
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.5] * 64}
    url = f"http://{address}:9000/v2/models/classifier/infer"
    reply = json.loads(asked(url, json.dumps({"inputs": [tensor]}).encode()))
    assert [output["name"] for output in reply["outputs"]] == ["label", "probabilities"]


def as_the_operator_does(spec, digest):
    """A Deployment of a predictor's pods: the model in /mnt/models, ports and a probe are Core 1's."""
    (container,) = spec["containers"]
    ports = [{"name": "MLSERVER_HTTP_PORT", "value": "9000"}, {"name": "MLSERVER_GRPC_PORT", "value": "9500"}]
    model = {"name": "models", "mountPath": "/mnt/models", "subPath": f"sha256/{digest}", "readOnly": True}
    container |= {
        "env": ports,
        "volumeMounts": [*container["volumeMounts"], model],
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": 9000}, "periodSeconds": 5},
    }
    claim = {"name": "models", "persistentVolumeClaim": {"claimName": "holdfast-models"}}
    return deployment("predictor", {**spec, "volumes": [*spec["volumes"], claim]}, replicas=2)


def deployment(name, spec, replicas=1, **metadata):
    template = {"metadata": {"labels": {"app": name}, **metadata}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": MODELS, "labels": {"holdfast.verify": "true"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def test_the_patch_of_the_page_leads_the_predictor_to_a_bundle_of_the_store(node, first):
    address = f"pvc://holdfast-models/sha256/{first['digest']}"
    patch = [{"op": "replace", "path": "/spec/predictors/0/graph/modelUri", "value": address}]
    words = ["seldondeployment", "model", f"-n={MODELS}", "--type=json", f"--patch={json.dumps(patch)}"]
    assert node.call("patch", *words).returncode == 0
    found = node.get("seldondeployment", "model", MODELS)
    assert found["spec"]["predictors"][0]["graph"]["modelUri"] == address


@pytest.fixture
def verified(node, keys, tmp_path, first):
    """Applies a Deployment behind the init container; the name of its pod."""
    about = {"name": "holdfast-verify-state", "namespace": MODELS}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": about, "spec": spec}
    policy = {path.name: path.read_text() for path in keys.iterdir() if path.suffix != ".pem"}
    maps = {"holdfast-verify": {"tracking": TRACKING}, "holdfast-trust": policy}
    node.apply(disk(node.folder, claim), claim, *(configmap(name, data) for name, data in maps.items()))

    def run(name, model):
        server = {
            "name": "server",
            "image": "registry.invalid/holdfast/serving:0.1.0",
            "command": ["python", "-m", "http.server", "8000"],
            "securityContext": {"runAsUser": 65532, "runAsNonRoot": True},
        }
        body = deployment(name, {"containers": [server]}, annotations={"holdfast/model": model})
        folder = tmp_path / name
        folder.mkdir()
        (folder / "deployment.yaml").write_text(yaml.safe_dump(body))
        component = os.path.relpath(MANIFESTS / "base" / "verify", folder.resolve())
        (folder / "kustomization.yaml").write_text(f"resources: [deployment.yaml]\ncomponents: [{component}]\n")
        node.apply(*(for_the_node(one) for one in render(folder)))
        wait(lambda: pods(node, f"app={name}") != [], 30, f"a pod of {name}")
        return pods(node, f"app={name}")[0]

    return run


def configmap(name, data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": MODELS}, "data": data}


def test_no_server_starts_before_its_model_is_released(node, keys, verified, first):
    refused = verified("early", "models:/digits/1")
    wait(lambda: "release statement" in node.log(refused, MODELS, "holdfast-verify"), 120, "a refusal",
         lambda: node.about(refused, MODELS))  # fmt: skip
    assert node.get("pod", refused, MODELS)["status"]["phase"] == "Pending"
    registry.release(TRACKING, "digits", 1, read_signer(str(keys / "release.pem")))
    verified("released", "models:/digits/1")
    available(node, "released")


def test_no_pod_of_ours_was_refused_or_killed(node):
    found = [one for space in (MODELS, RUNS) for one in node.objects("events", space) if one["type"] == "Warning"]
    bad = [f"{one['involvedObject']['name']}: {one['reason']}: {one['message']}" for one in found]
    known = ("Unhealthy", "BackOff", "MissingClusterDNS", "DNSConfigForming")
    assert [line for line in bad if not any(word in line for word in known)] == []
