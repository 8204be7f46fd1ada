"""A real kube-apiserver takes every object of every overlay, and keeps every field that is written."""

import contextlib

import pytest

from holdfast.kubernetes.api import ConflictError, KubeError, Resource
from tests.manifests.rendered import DRIVERS, OVERLAYS, everything, named, overlay, served_by
from tests.serving.rollout.cluster.conftest import CRDS, NAMESPACES, OPEN, definition, served, wait_for

OPERATORS = {
    ("serving.kserve.io", "v1alpha1", "ServingRuntime", "servingruntimes"),
    ("mlops.seldon.io", "v1alpha1", "Server", "servers"),
    ("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"),
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
    ("external-secrets.io", "v1", "ExternalSecret", "externalsecrets"),
}
"""Kinds whose own definitions are not here: any content is taken, under their names."""
OLDER = {("batch/v1", "CronJob"): "batch/v1beta1", ("policy/v1", "PodDisruptionBudget"): "policy/v1beta1"}
"""The same objects under the version that servers before 1.21 know."""
PLURALS = {"NetworkPolicy": "networkpolicies", "InferenceService": "inferenceservices"}


@pytest.fixture(scope="module")
def server(seldon):
    """The API server with a definition of every kind that is used."""
    client = seldon.kube()
    for group, version, kind, plural in OPERATORS:
        names = {"kind": kind, "plural": plural, "singular": kind.lower()}
        try:
            client.create(CRDS, definition(group, version, names, OPEN, {}))
        except ConflictError:
            continue
        resource = Resource(group, version, plural, "default")
        wait_for(lambda one=resource: served(client, one), 30, plural)
    yield client
    client.close()


def resource_of(body, version):
    group, _, number = version.rpartition("/")
    plural = PLURALS.get(body["kind"], f"{body['kind'].lower()}s")
    space = None if body["kind"] == "Namespace" else body["metadata"].get("namespace", "models")
    return Resource(group, number, plural, space)


def dry_run(client, body):
    """What the server would store."""
    version = body["apiVersion"]
    if not serves(client, version, body["kind"]):
        version = OLDER[version, body["kind"]]
    path = resource_of(body, version).path()
    return client._call("POST", f"{path}?dryRun=All", {**body, "apiVersion": version})


def serves(client, version, kind):
    group, _, number = version.rpartition("/")
    try:
        found = client._call("GET", f"/apis/{group}/{number}" if group else f"/api/{number}")
    except KubeError:
        return False
    return any(one["kind"] == kind for one in found["resources"])


def lost(sent, kept, where=""):
    """Fields that were sent and are not kept: the server knows none of that name there."""
    if isinstance(sent, dict):
        for key, value in sent.items():
            if key not in kept:
                yield f"{where}.{key}"
            else:
                yield from lost(value, kept[key], f"{where}.{key}")
    elif isinstance(sent, list):
        for number, (one, other) in enumerate(zip(sent, kept, strict=True)):
            yield from lost(one, other, f"{where}[{number}]")


def space(client, name):
    with contextlib.suppress(ConflictError):
        client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_is_taken_and_no_field_is_lost(server, name):
    for body in overlay(name):
        space(server, body["metadata"].get("namespace", "models"))
        if body["kind"] != "Namespace":
            assert list(lost(body, {**dry_run(server, body), "apiVersion": body["apiVersion"]})) == [], named(body)


def test_a_field_that_no_one_knows_is_found(server):
    space(server, "models")
    body = everything()["Deployment/holdfast-mlflow"]
    wrong = {**body, "spec": {**body["spec"], "replica": 1}}
    assert list(lost(wrong, dry_run(server, wrong))) == [".spec.replica"]


def test_the_objects_of_core_2_are_taken(server):
    space(server, "models")
    for body in served_by("seldon-v2"):
        assert list(lost(body, {**dry_run(server, body), "apiVersion": body["apiVersion"]})) == [], named(body)
    assert len(DRIVERS) == 3
