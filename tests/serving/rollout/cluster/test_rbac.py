"""The service accounts of manifests/base/rollout can do exactly what the table has, and that is enough."""

import time
from pathlib import Path

import pytest
import yaml

from holdfast.kubernetes.api import KubeError, Resource
from holdfast.serving.rollout.cluster import watchdog
from holdfast.serving.rollout.cluster.open import open_cluster, prepare
from holdfast.serving.rollout.cluster.table import DRIVERS

BASE = Path(__file__).parents[4] / "manifests" / "base" / "rollout"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
RESOURCES = (
    ("machinelearning.seldon.io", "seldondeployments"),
    ("machinelearning.seldon.io", "seldondeployments/status"),
    ("machinelearning.seldon.io", "seldondeployments/scale"),
    ("mlops.seldon.io", "experiments"),
    ("mlops.seldon.io", "experiments/status"),
    ("mlops.seldon.io", "models"),
    ("mlops.seldon.io", "models/status"),
    ("mlops.seldon.io", "pipelines"),
    ("serving.kserve.io", "inferenceservices"),
    ("serving.kserve.io", "inferenceservices/status"),
    ("networking.istio.io", "virtualservices"),
    ("networking.istio.io", "destinationrules"),
    ("apps", "deployments"),
    ("apps", "deployments/scale"),
    ("batch", "cronjobs"),
    ("batch", "jobs"),
    ("coordination.k8s.io", "leases"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("", "configmaps"),
    ("", "events"),
    ("", "pods"),
    ("", "pods/exec"),
    ("", "pods/log"),
    ("", "secrets"),
    ("", "serviceaccounts"),
    ("", "serviceaccounts/token"),
    ("", "services"),
)
DRIVER = {
    ("seldondeployments", "get"),
    ("seldondeployments", "patch"),
    ("experiments", "get"),
    ("experiments", "create"),
    ("experiments", "patch"),
    ("experiments", "delete"),
    ("models", "get"),
    ("models", "create"),
    ("models", "patch"),
    ("inferenceservices", "get"),
    ("inferenceservices", "patch"),
    ("virtualservices", "list"),
    ("deployments", "get"),
}
WATCHDOG = {
    ("seldondeployments", "get"),
    ("seldondeployments", "list"),
    ("seldondeployments", "patch"),
    ("experiments", "list"),
    ("experiments", "delete"),
    ("models", "get"),
    ("models", "patch"),
    ("inferenceservices", "get"),
    ("inferenceservices", "list"),
    ("inferenceservices", "patch"),
}
ACCOUNTS = {"holdfast-rollout": DRIVER, "holdfast-rollout-watchdog": WATCHDOG}
REVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", None)


@pytest.fixture
def account(seldon, kube, namespace):
    """A client with the token of a service account, after the manifests were applied to the namespace."""
    kinds = {
        "ServiceAccount": Resource("", "v1", "serviceaccounts", namespace),
        "Role": Resource("rbac.authorization.k8s.io", "v1", "roles", namespace),
        "RoleBinding": Resource("rbac.authorization.k8s.io", "v1", "rolebindings", namespace),
    }
    for name in ("driver.yaml", "watchdog.yaml"):
        for body in yaml.safe_load_all((BASE / name).read_text()):
            if body["kind"] in kinds:
                # As a kustomization with this namespace.
                for place in (body["metadata"], *body.get("subjects", ())):
                    place["namespace"] = namespace
                kube.create(kinds[body["kind"]], body)
    made = []

    def client(name):
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        tokens = Resource("", "v1", f"serviceaccounts/{name}/token", namespace)
        made.append(seldon.kube(kube.create(tokens, request)["status"]["token"]))
        return made[-1]

    yield client
    for item in made:
        item.close()


def allowed(client, namespace):
    found = set()
    for group, resource in RESOURCES:
        name, _, sub = resource.partition("/")
        for verb in VERBS:
            asked = {"namespace": namespace, "group": group, "resource": name, "subresource": sub, "verb": verb}
            body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
            answer = client.create(REVIEWS, {**body, "spec": {"resourceAttributes": asked}})
            if answer["status"]["allowed"]:
                found.add((resource, verb))
    return found


@pytest.mark.parametrize("name", ACCOUNTS)
def test_an_account_can_do_exactly_its_table_here_and_nothing_elsewhere(account, namespace, name):
    client = account(name)
    assert allowed(client, namespace) == ACCOUNTS[name]
    assert allowed(client, "default") == set()


def test_what_the_table_leaves_out_is_refused(account, namespace):
    with pytest.raises(KubeError, match="the API answered 403 secrets is forbidden: .*cannot list"):
        account("holdfast-rollout").list(Resource("", "v1", "secrets", namespace))


@pytest.mark.parametrize("version", list(DRIVERS))
def test_the_drivers_account_is_enough_for_a_whole_rollout(
    account, operator, champion, make_target, counters, mesh, version
):
    champion(version)
    client = account("holdfast-rollout")
    cluster = open_cluster(make_target(version), client, "decision-1", counters)
    prepare(cluster, 15)
    cluster.driver.steady = 0.2
    cluster.store.write("intent", {"state": "Shadow"})
    cluster.driver.apply(0, True)
    cluster.driver.apply(25, False)
    assert cluster.driver.observe().candidate_alive
    cluster.driver.apply(100, False)
    cluster.driver.promote()
    cluster.store.write("done", {"state": "Promoted"})
    again = open_cluster(make_target(version), client, "decision-2", counters)
    again.driver.remove_candidate()


@pytest.mark.parametrize("version", list(DRIVERS))
def test_the_watchdogs_account_is_enough_to_take_back(
    account, namespace, kube, operator, champion, make_target, counters, mesh, version
):
    champion(version)
    cluster = open_cluster(make_target(version), kube, "decision-1", counters)
    prepare(cluster, 15)
    cluster.driver.apply(25, False)
    late = time.time() + 3600
    assert len(watchdog.expire(account("holdfast-rollout-watchdog"), namespace, lambda: late)) == 1
