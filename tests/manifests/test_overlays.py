"""The overlays: hardened pods from no one's registry, all that they name is there, and no traffic that is not named."""

import re
from pathlib import Path

import pytest
import typer
import yaml

from holdfast.cli import app
from holdfast.serving.rollout.cluster.table import DRIVERS as DRIVER_TABLE
from holdfast.serving.rollout.cluster.target import Target
from holdfast.workload.schema import read_plan
from holdfast.workload.yaml import parse_yaml
from tests.manifests.rendered import (
    DRIVERS,
    MANIFESTS,
    OVERLAYS,
    containers_of,
    data_of,
    everything,
    of_kind,
    ours,
    overlay,
    pods,
    pods_of,
    served_by,
)
from tests.manifests.started import STARTED

WITH_ROLLOUTS = ("dev", "prod")
BY_REFERENCE = {"holdfast-mlflow", "holdfast-mlflow-server", "holdfast-trust", "kube-root-ca.crt"}
"""Secrets and ConfigMaps that people, an operator or Kubernetes make."""


def words(container):
    return [*container.get("command", ()), *container.get("args", ())]


@pytest.mark.parametrize("name", OVERLAYS)
def test_all_is_in_the_namespace_of_the_overlay_rights_too(name):
    where = {body["metadata"].get("namespace") for body in overlay(name) if body["kind"] != "Namespace"}
    assert len(where) == 1
    for binding in of_kind(name, "RoleBinding").values():
        assert {subject["namespace"] for subject in binding["subjects"]} == where


def test_no_image_can_be_pulled_before_a_registry_is_named():
    found = {
        container["image"]
        for name in OVERLAYS
        for body in overlay(name)
        for pod in pods_of(body)
        for container in ours(pod)
    }
    assert len(found) >= 3
    assert all(image.startswith("registry.invalid/") for image in found), found


def test_every_pod_meets_pod_security_restricted():
    found = dict(pods())
    assert len(found) >= 8
    for name, pod in found.items():
        for container in ours(pod):
            security = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert security["runAsNonRoot"] is True, name
            assert security["runAsUser"] > 0, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert not any("hostPath" in volume for volume in pod.get("volumes", ())), name


def test_every_container_has_a_read_only_root_sizes_and_all_its_volumes():
    for name, pod in pods():
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        for container in ours(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert set(container["resources"]["limits"]) == {"cpu", "memory"}, name
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name


def test_no_pod_has_a_token_that_it_does_not_use():
    for name, pod in pods():
        if "serviceAccountName" in pod:
            assert pod["automountServiceAccountToken"] is False, name
    for name in OVERLAYS:
        assert not any(body["automountServiceAccountToken"] for body in of_kind(name, "ServiceAccount").values())


def test_what_stays_up_has_probes_and_may_be_moved_by_a_drain():
    budgets = [body["spec"] for name in OVERLAYS for body in of_kind(name, "PodDisruptionBudget").values()]
    assert all(budget["maxUnavailable"] == 1 for budget in budgets)
    for name in WITH_ROLLOUTS:
        for kind in ("Deployment", "StatefulSet"):
            for body in of_kind(name, kind).values():
                (container,) = body["spec"]["template"]["spec"]["containers"]
                assert {"readinessProbe", "livenessProbe"} <= set(container)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_secret_configmap_claim_and_account_is_there_or_is_a_known_reference(name):
    made = {(body["kind"], body["metadata"]["name"]) for body in overlay(name)}
    for pod in (pod for body in overlay(name) for pod in pods_of(body)):
        for kind, reference in references(pod):
            assert (kind, reference) in made or reference in BY_REFERENCE, (kind, reference)


def references(pod):
    if "serviceAccountName" in pod:
        yield "ServiceAccount", pod["serviceAccountName"]
    for volume in pod.get("volumes", ()):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and claim != volume["name"]:
            yield "PersistentVolumeClaim", claim
    for source in (item.get("valueFrom", {}) for container in containers_of(pod) for item in container.get("env", ())):
        for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            if key in source:
                yield kind, source[key]["name"]


@pytest.mark.parametrize("name", WITH_ROLLOUTS)
def test_every_key_that_is_read_from_a_configmap_is_in_it(name):
    for body in overlay(name):
        for container in (container for pod in pods_of(body) for container in ours(pod)):
            for item in container.get("env", ()):
                source = item.get("valueFrom", {}).get("configMapKeyRef")
                if source:
                    assert source["key"] in of_kind(name, "ConfigMap")[source["name"]]["data"]


def test_our_commands_know_their_options():
    seen = set()
    for name, pod in pods():
        for container in ours(pod):
            line = words(container)
            if line[:3] != ["python", "-m", "holdfast"]:
                continue
            command, rest = typer.main.get_command(app), line[3:]
            while rest and hasattr(command, "commands"):
                command, rest = command.commands[rest[0]], rest[1:]
            known = {flag for option in command.params for flag in option.opts}
            assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known, name
            seen.add(command.name)
    assert seen == {"watchdog", "next", "bundle", "serve"}


def test_every_variable_in_a_command_is_set():
    operators = {"MLSERVER_HTTP_PORT", "MLSERVER_GRPC_PORT"}
    for name, pod in pods():
        for container in ours(pod):
            used = set(re.findall(r"\$\((\w+)\)", " ".join(words(container))))
            assert used <= operators | {item["name"] for item in container.get("env", ())}, name


def labels_of(body):
    spec = body["spec"]
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
    return template.get("metadata", {}).get("labels", {})


@pytest.mark.parametrize("name", WITH_ROLLOUTS)
def test_nothing_passes_that_is_not_named_and_every_pod_of_ours_has_a_policy(name):
    policies = {key: body["spec"] for key, body in of_kind(name, "NetworkPolicy").items()}
    assert policies["holdfast-nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for body in overlay(name):
        if body["kind"] in ("Deployment", "StatefulSet", "CronJob"):
            labels = labels_of(body)
            chosen = [key for key, spec in policies.items() if matches(spec["podSelector"], labels)]
            assert chosen, body["metadata"]["name"]
    assert "egress" not in policies["holdfast-predictor"]


def test_every_pod_with_an_image_of_ours_is_started_by_a_test_that_is_there():
    images = {name: [container["image"] for container in ours(pod)] for name, pod in pods()}
    of_ours = {name for name, found in images.items() if any("holdfast/" in image for image in found)}
    assert of_ours | {"Deployment/any"} == STARTED.keys()  # base/verify is a patch
    for test in STARTED.values():
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (Path(__file__).parent / file).read_text()


SERVERS = {
    "kserve": {"serving.kserve.io/inferenceservice": "model"},
    "seldon-v1": {"seldon-deployment-id": "model", "seldon-app": "model-main"},
    "seldon-v2": {"seldon-server-name": "holdfast", "app.kubernetes.io/name": "seldon-server"},
}
"""The labels that each operator gives the pods of our predictor (read in their sources)."""


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_predictors_of_every_operator_have_a_policy_and_a_budget(driver):
    found = served_by(driver)
    for kind, of in (("NetworkPolicy", "podSelector"), ("PodDisruptionBudget", "selector")):
        specs = [
            body["spec"] for body in found if (body["kind"], body["metadata"]["name"]) == (kind, "holdfast-predictor")
        ]
        assert [matches(spec[of], SERVERS[driver]) for spec in specs] == [True], kind


def matches(selector, labels):
    wanted = selector.get("matchLabels") or {}
    return bool(wanted) and wanted.items() <= labels.items()


def test_the_plan_and_every_target_are_what_a_rollout_reads():
    read_plan(MANIFESTS / "components" / "rollout" / "plan.yaml")
    for driver in DRIVERS:
        assert target_of(driver).driver == driver
    assert set(DRIVERS) == set(DRIVER_TABLE)


def target_of(driver, **texts):
    text = (MANIFESTS / "components" / driver / "target.yaml").read_text()
    for key, value in {"digest": "d" * 64, "namespace": "models", "image": "registry/serving:1", **texts}.items():
        text = text.replace(f"{{{key}}}", value)
    return parse_yaml(text, Target, name=driver)


def test_a_candidate_is_served_as_its_champion_is():
    deployment = everything()["SeldonDeployment/model"]
    (stable,) = deployment["spec"]["predictors"]
    (container,) = stable["componentSpecs"][0]["spec"]["containers"]
    candidate = target_of("seldon-v1", digest="none", image=container["image"]).section.candidate.model_dump(
        mode="json"
    )
    assert candidate | {"name": "main", "replicas": 2, "traffic": 100} == stable

    service = everything()["InferenceService/model"]["spec"]["predictor"]
    assert target_of("kserve", digest="none").section.candidate.model_dump(mode="json") == service

    model = everything()["Model/model-main"]["spec"]
    assert target_of("seldon-v2", digest="none").section.candidate.spec == model


@pytest.mark.parametrize("name", WITH_ROLLOUTS)
def test_the_first_versions_digest_gets_into_the_address_and_the_image_into_the_target(name, tmp_path):
    assert data_of(name, "holdfast-rollout")["champion"] == "none"
    (job,) = of_kind(name, "CronJob")["holdfast-rollout"]["spec"]["jobTemplate"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert job["image"] in [item.get("value") for item in job["env"] if item["name"] == "IMAGE"]


def test_production_asks_for_approvals_and_trusts_no_one_until_keys_are_named():
    data, trust = data_of("prod", "holdfast-rollout"), data_of("prod", "holdfast-trust")
    assert (data["approvals"], data["trust"]) == ("1", "/etc/holdfast/trust/trust.yaml")
    assert yaml.safe_load(trust["trust.yaml"])["roles"] == {}


def test_every_component_is_in_an_overlay_or_in_the_readme():
    text = (MANIFESTS / "README.md").read_text()
    assert [
        path.name for path in sorted((MANIFESTS / "components").iterdir()) if f"components/{path.name}" not in text
    ] == []


def test_skips_of_checks_have_their_reason():
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        if "pipelines" not in path.parts:
            for line in Path(path).read_text().splitlines():
                if "checkov.io/skip" in line:
                    assert re.search(r"CKV_K8S_\d+=.{20,}", line), (path, line)
