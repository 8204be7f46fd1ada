"""What people apply to their cluster: images by our names, hardened pods, no right that is not in the table."""

from pathlib import Path

import pytest
import yaml

from holdfast import containers

BASE = Path(__file__).parents[2] / "manifests" / "base" / "rollout"


def objects():
    names = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(names) == sorted(path.name for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")
    return [body for name in names for body in yaml.safe_load_all((BASE / name).read_text())]


def kinds(kind):
    return {body["metadata"]["name"]: body for body in objects() if body["kind"] == kind}


@pytest.fixture
def pod():
    return kinds("CronJob")["holdfast-rollout-watchdog"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_the_image_is_the_one_of_this_version(pod):
    assert [container["image"] for container in pod["containers"]] == [containers.SERVING]


def test_the_pod_is_hardened(pod):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert [item["name"] for item in container["env"]] == ["NAMESPACE"]


def test_the_watchdog_is_called_with_options_that_it_knows(pod):
    import typer

    from holdfast.cli import app

    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "holdfast", "rollout", "watchdog"]
    command = typer.main.get_command(app).commands["rollout"].commands["watchdog"]
    known = {flag for option in command.params for flag in option.opts}
    assert {word for word in container["args"] if word.startswith("--")} <= known


def test_the_token_is_short_lived_and_mounted_on_purpose(pod):
    assert pod["automountServiceAccountToken"] is False
    assert not any(body["automountServiceAccountToken"] for body in kinds("ServiceAccount").values())
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "token")
    assert volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] <= 3600


def test_jobs_do_not_pile_up_and_end_before_the_next_but_one(pod):
    spec = kinds("CronJob")["holdfast-rollout-watchdog"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] <= 90


def test_rights_are_of_one_namespace_and_name_no_wildcard():
    assert not any(body["kind"].startswith("Cluster") for body in objects())
    for role in kinds("Role").values():
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "secrets" not in rule["resources"]
            assert not ("models" in rule["resources"] and "delete" in rule["verbs"])


def test_every_binding_binds_what_is_there():
    roles, accounts = kinds("Role"), kinds("ServiceAccount")
    for binding in kinds("RoleBinding").values():
        assert binding["roleRef"]["name"] in roles
        for subject in binding["subjects"]:
            assert subject["name"] in accounts
