"""`holdfast cluster check` on a real kube-apiserver: a cluster that has everything, one that lacks, and one account."""

import base64
import json

import pytest
import yaml
from typer.testing import CliRunner

from holdfast.cli.app import app
from holdfast.kubernetes.api import ConflictError, Resource
from holdfast.kubernetes.needs import DRIVERS, has_no_registry, rights_of
from tests.manifests.rendered import MANIFESTS, overlay
from tests.manifests.test_api_server import OLDER, resource_of, serves
from tests.serving.rollout.cluster.conftest import ADMIN_TOKEN, CRDS, OPEN, definition, served, wait_for

KINDS = (
    ("serving.kserve.io", "v1alpha1", "ServingRuntime", "servingruntimes"),
    ("mlops.seldon.io", "v1alpha1", "Server", "servers"),
    ("argoproj.io", "v1alpha1", "Workflow", "workflows"),
)
CONTENT = {
    "holdfast-mlflow-server": ("auth.ini", "backend-store-uri", "session-key"),
    "holdfast-mlflow": ("username", "password"),
}


@pytest.fixture(scope="module")
def whole(seldon):
    """An API server with every kind that a cluster of ours has."""
    client = seldon.kube()
    for group, version, kind, plural in KINDS:
        names = {"kind": kind, "plural": plural, "singular": kind.lower()}
        try:
            client.create(CRDS, definition(group, version, names, OPEN, {}))
        except ConflictError:
            continue
        resource = Resource(group, version, plural, "default")
        wait_for(lambda one=resource: served(client, one), 30, plural)
    client.close()
    return seldon


@pytest.fixture
def check(whole, namespace, tmp_path):
    """Runs the command with a token; returns its exit code, and state and detail of each row by name."""

    def run(*options, token=ADMIN_TOKEN, driver="kserve"):
        config = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
            "clusters": [{"name": "c", "cluster": {"server": whole.url, "certificate-authority": str(whole.ca_file)}}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        words = ["cluster", "check", f"--driver={driver}", f"--kubeconfig={tmp_path / 'kubeconfig'}", *options]
        done = CliRunner().invoke(app, words)
        rows = json.loads(done.stdout) if "--output=json" in options else []
        return done, {row["name"]: (row["state"], row["detail"]) for row in rows}

    return run


def put(kube, body, namespace):
    """Creates an object in the namespace, under the version that the server has."""
    moved = {**body, "metadata": {**body["metadata"], "namespace": namespace}}
    if "subjects" in body:
        moved["subjects"] = [{**subject, "namespace": namespace} for subject in body["subjects"]]
    version = body["apiVersion"] if serves(kube, body["apiVersion"], body["kind"]) else None
    moved["apiVersion"] = version or OLDER[body["apiVersion"], body["kind"]]
    kube.create(resource_of(moved, moved["apiVersion"]), moved)


@pytest.fixture
def applied(kube, namespace):
    """The overlay `dev` with a registry, its secrets, bound claims and a ready MLflow: what controllers would make."""
    for body in overlay("dev"):
        if body["kind"] in ("Namespace", "ResourceQuota", "LimitRange"):
            continue
        text = yaml.safe_dump(body).replace("registry.invalid", "registry.example")
        put(kube, yaml.safe_load(text), namespace)
    for name, keys in CONTENT.items():
        data = {key: base64.b64encode(b"x").decode() for key in keys}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
        kube.create(Resource("", "v1", "secrets", namespace), body)
    for claim in ("holdfast-mlflow", "holdfast-models", "holdfast-rollout"):
        kube.merge(
            Resource("", "v1", "persistentvolumeclaims", namespace), claim, {"status": {"phase": "Bound"}}, "status"
        )
    status = {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}
    kube.merge(Resource("apps", "v1", "deployments", namespace), "holdfast-mlflow", {"status": status}, "status")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "ml-pipeline"},
        "spec": {"ports": [{"port": 8888}]},
    }
    kube.create(Resource("", "v1", "services", namespace), service)
    default = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}, "name": namespace}
    body = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": default, "provisioner": "none"}
    classes = Resource("storage.k8s.io", "v1", "storageclasses", None)
    kube.create(classes, body)
    yield f"--pipelines-namespace={namespace}"
    kube.delete(classes, namespace)


@pytest.fixture
def prometheus(serve):
    """A server that answers every GET."""
    server = serve()
    return f"--prometheus=http://127.0.0.1:{server.server_address[1]}"


def test_a_cluster_that_has_everything_is_ready(check, applied, prometheus):
    done, rows = check(applied, prometheus, "--output=json")
    assert {name: row for name, row in rows.items() if row[0] != "ok"} == {}
    assert done.exit_code == 0
    assert rows["rights of holdfast-rollout"] == ("ok", "2 calls allowed")
    assert rows["images"][1] == "3, none without a registry"
    text = check(applied, prometheus)[0].stdout
    assert text.splitlines()[-1] == f"{len(rows)} there, 0 missing, 0 not known"


@pytest.mark.parametrize("driver", [name for name in DRIVERS if name != "kserve"])
def test_the_accounts_of_the_manifests_have_the_rights_of_every_driver(check, applied, prometheus, driver):
    _, rows = check(applied, prometheus, "--output=json", driver=driver)
    assert {name: row for name, row in rows.items() if row[0] != "ok"} == {}


def test_an_empty_namespace_lacks_what_is_to_be_done_next(check, namespace):
    done, rows = check("--output=json", "--gpu")
    assert done.exit_code == 3
    lacks = {name: detail for name, (state, detail) in rows.items() if state == "missing"}
    assert lacks["secret holdfast-mlflow-server"] == "make it, with auth.ini, backend-store-uri, session-key"
    assert lacks["rights of holdfast-rollout"] == (
        "no right to get inferenceservices, patch inferenceservices; apply manifests/base/rollout"
    )
    assert lacks["GPUs"].startswith("no node has nvidia.com/gpu")
    assert lacks["watchdog"] == "apply manifests/base/rollout: no rollout is safe without it"
    assert {"claim holdfast-models", "MLflow", "images", "Kubeflow Pipelines", "default storage class"} <= set(lacks)
    assert rows[f"namespace {namespace}"] == ("ok", "Pod Security: none")


def test_images_without_a_registry_and_secrets_without_a_key_are_found(check, kube, namespace):
    (mlflow,) = (body for body in overlay("dev") if body["kind"] == "Deployment")
    put(kube, mlflow, namespace)
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "holdfast-mlflow-server"},
        "data": {"auth.ini": "eA=="},
    }
    kube.create(Resource("", "v1", "secrets", namespace), body)
    _, rows = check("--output=json")
    assert rows["images"] == (
        "missing",
        "name your registry in `images` of the overlay, found registry.invalid/holdfast/mlflow:0.1.0",
    )
    assert rows["secret holdfast-mlflow-server"] == ("missing", "expected backend-store-uri, session-key in it")
    assert rows["MLflow"] == ("missing", "no pod of holdfast-mlflow is ready")


def test_an_account_without_rights_learns_what_it_could_not_see(check, whole, kube, namespace, applied):
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "guest"}}
    kube.create(Resource("", "v1", "serviceaccounts", namespace), account)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    tokens = Resource("", "v1", "serviceaccounts/guest/token", namespace)
    done, rows = check(applied, "--output=json", token=kube.create(tokens, request)["status"]["token"])
    assert done.exit_code == 3
    assert rows["your rights"][0] == "missing"
    assert rows["your rights"][1].startswith("no right to get configmaps, create configmaps")
    hidden = {
        name for name, (state, detail) in rows.items() if "you have no right to look" in detail and state == "not known"
    }
    assert {"secret holdfast-mlflow", "GPUs", "rights of holdfast-rollout", "images", "watchdog"} <= hidden
    assert rows["kind inferenceservices.serving.kserve.io"] == ("ok", "v1beta1")


def test_nothing_missing_but_not_all_seen_is_neither_ready_nor_lacking(check, applied):
    done, rows = check(applied, "--output=json")
    assert (done.exit_code, rows["Prometheus"][0]) == (4, "not known")


def test_servers_are_called_where_their_addresses_are_given(check, applied, prometheus):
    nowhere = "http://127.0.0.1:9"
    _, rows = check(applied, prometheus, f"--tracking={nowhere}", "--output=json")
    assert rows["Prometheus"] == ("ok", f"{prometheus.partition('=')[2]}/-/ready answered 200")
    assert rows["MLflow"][0] == "missing"


def test_a_token_that_no_one_knows_is_one_line(check):
    done, _ = check(token="wrong")
    assert "401" in str(done.exception)
    assert done.exit_code == 1


def test_a_driver_that_is_none_is_wrong_usage(check):
    assert check(driver="envoy")[0].exit_code == 2


def test_the_rights_are_those_of_the_manifests():
    for name, account in (("driver", "holdfast-rollout"), ("watchdog", "holdfast-rollout-watchdog")):
        bodies = yaml.safe_load_all((MANIFESTS / "base" / "rollout" / f"{name}.yaml").read_text())
        (role,) = (body for body in bodies if body["kind"] == "Role")
        given = {
            (group, plural, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for plural in rule["resources"]
            for verb in rule["verbs"]
        }
        assert {right for driver in DRIVERS for right in rights_of(driver)[account]} == given


@pytest.mark.parametrize("image", ["holdfast/serving:0.1.0", "docker.io/holdfast/model:1", "registry.invalid/mlflow:1"])
def test_names_that_anyone_may_take_are_known(image):
    assert has_no_registry(image)
    assert not has_no_registry(f"registry.example/ml/{image.rpartition('/')[2]}")
