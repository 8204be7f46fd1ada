"""The init container that lets no server start before its model's signatures hold."""

from pathlib import Path

import typer
import yaml

from holdfast import containers
from holdfast.cli import app

BASE = Path(__file__).parents[2] / "manifests" / "base" / "verify"


def pod():
    return yaml.safe_load((BASE / "init-container.yaml").read_text())["spec"]["template"]["spec"]


def test_the_component_patches_what_asks_for_it():
    (patch,) = yaml.safe_load((BASE / "kustomization.yaml").read_text())["patches"]
    assert (BASE / patch["path"]).is_file()
    assert patch["target"] == {"kind": "Deployment", "labelSelector": "holdfast.verify=true"}


def test_it_calls_verify_with_options_that_it_knows_and_demands_the_newest_release():
    (container,) = pod()["initContainers"]
    assert container["image"] == containers.SERVING
    assert container["command"] == ["python", "-m", "holdfast", "verify"]
    known = {flag for option in typer.main.get_command(app).commands["verify"].params for flag in option.opts}
    given = {word.partition("=")[0] for word in container["args"] if word.startswith("--")}
    assert {"--trust", "--released", "--state"} <= given <= known


def test_it_logs_in_by_a_password_or_a_token_as_the_other_clients_of_mlflow_do():
    (container,) = pod()["initContainers"]
    taken = {item["valueFrom"].get("secretKeyRef", {}).get("key"): item["name"] for item in container["env"]}
    assert {taken[key] for key in ("username", "password", "token")} == {
        "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
    }  # fmt: skip


def test_it_is_hardened_and_every_mount_has_its_volume():
    (container,) = pod()["initContainers"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["runAsNonRoot"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod()["volumes"]}
