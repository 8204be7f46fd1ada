"""The overlays of manifests/ as kustomize renders them, and the pods in them."""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAYS = tuple(sorted(path.name for path in (MANIFESTS / "overlays").iterdir()))
DRIVERS = ("kserve", "seldon-v1", "seldon-v2")
BY_COMPONENTS = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: models
components: [{components}/rollout, {components}/{driver}]
"""


@functools.cache
def render(folder: Path) -> tuple[dict[str, Any], ...]:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, which renders the overlays")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def overlay(name: str) -> tuple[dict[str, Any], ...]:
    return render(MANIFESTS / "overlays" / name)


@functools.cache
def served_by(driver: str) -> tuple[dict[str, Any], ...]:
    """The components of rollouts with those of a driver, which need not be in an overlay."""
    with TemporaryDirectory() as made:
        folder = Path(made).resolve()  # kustomize takes no absolute address
        components = os.path.relpath(MANIFESTS / "components", folder)
        (folder / "kustomization.yaml").write_text(BY_COMPONENTS.format(components=components, driver=driver))
        return render(folder)


@functools.cache
def everything() -> dict[str, dict[str, Any]]:
    """Kind/name -> object, of all overlays; Core 2's, which no overlay has, from its component."""
    found = {named(body): body for body in served_by("seldon-v2")}
    return found | {named(body): body for name in OVERLAYS for body in overlay(name)}


def named(body: dict[str, Any]) -> str:
    return f"{body['kind']}/{body['metadata']['name']}"


def of_kind(name: str, kind: str) -> dict[str, dict[str, Any]]:
    return {body["metadata"]["name"]: body for body in overlay(name) if body["kind"] == kind}


def data_of(name: str, prefix: str) -> dict[str, str]:
    """The content of the ConfigMap whose name begins so: a hash of it is its end."""
    (found,) = (body for key, body in of_kind(name, "ConfigMap").items() if key.rpartition("-")[0] == prefix)
    data: dict[str, str] = found["data"]
    return data


def pods_of(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pod specs of an object; claims that a StatefulSet makes are volumes of its pods."""
    spec = body.get("spec") or {}
    match body["kind"]:
        case "ServingRuntime":
            yield spec
        case "Server":
            yield spec["podSpec"]
        case "SeldonDeployment":
            yield from (part["spec"] for predictor in spec["predictors"] for part in predictor["componentSpecs"])
        case _:
            template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
            if template is not None:
                claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())]
                made = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
                yield {**template["spec"], "volumes": [*template["spec"].get("volumes", ()), *made]}


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, body in everything().items():
        for spec in pods_of(body):
            yield name, spec


def containers_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def ours(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers that have an image: what an operator adds to is its own."""
    return [container for container in containers_of(pod) if "image" in container]
