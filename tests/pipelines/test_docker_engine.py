"""kfp's own DockerRunner runs the compiled retrain pipeline in the real images, where an engine has them.

DOCKER_HOST names the engine's socket (`podman system service`, or dockerd), HOLDFAST_TEST_REGISTRY the registry of the
images. The source tree is mounted over the code of the images.
"""

import os
from pathlib import Path

import pytest

pytest.importorskip("docker", reason="DockerRunner needs the client of Docker")

import docker
from kfp import local
from kfp.components import load_component_from_file
from kfp.local import executor_output_utils
from kfp.local.config import LocalExecutionConfig

from holdfast import containers
from holdfast.resources import workloads
from holdfast.steps import STEPS
from holdfast_pipelines.cluster import ClusterSettings
from holdfast_pipelines.compiled import compile_pipelines
from holdfast_pipelines.parameters import Settings, for_cluster, read, retrain_parameters

ROOT = Path(__file__).parents[2]
REGISTRY = os.environ.get("HOLDFAST_TEST_REGISTRY", "")
RETRAIN = [step for step in STEPS if step.pipeline == "retrain"]
SOURCES = ("components", "gates", "pipelines", "manifests")


def missing() -> str:
    """Why this cannot run here; empty: it can."""
    if not REGISTRY or "DOCKER_HOST" not in os.environ:
        return "needs an engine (DOCKER_HOST) with the images (HOLDFAST_TEST_REGISTRY)"
    held = {tag for image in docker.from_env().images.list() for tag in image.tags}
    lacking = [image(name) for name in {step.environment for step in RETRAIN} if image(name) not in held]
    return f"the engine has no {', '.join(lacking)}" if lacking else ""


def image(environment: str) -> str:
    return containers.image(environment, registry=REGISTRY)


@pytest.mark.e2e
def test_the_compiled_pipeline_runs_in_the_images_with_nothing_of_kfp_replaced(tmp_path, monkeypatch):
    if missing():
        pytest.skip(missing())
    settings = ClusterSettings(registry=REGISTRY)
    compile_pipelines(tmp_path / "compiled", settings)
    (path,) = (path for path in workloads() if path.stem == "digits")
    parameters = retrain_parameters(
        for_cluster(read(path), settings), path.parent, Settings(tracking=f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    )
    found, collect = {}, executor_output_utils.get_outputs_for_task

    def spy(executor_input, component_spec):
        outputs = collect(executor_input, component_spec)
        found[Path(executor_input.outputs.output_file).parent.name] = outputs
        return outputs

    monkeypatch.setattr(executor_output_utils, "get_outputs_for_task", spy)  # looks, and changes nothing
    monkeypatch.setattr(LocalExecutionConfig, "instance", None)
    (tmp_path / "mlflow").mkdir()
    mounts = [docker.types.Mount(f"/src/{name}", str(ROOT / name), type="bind", read_only=True) for name in SOURCES]
    mounts.append(docker.types.Mount(str(tmp_path / "mlflow"), str(tmp_path / "mlflow"), type="bind"))
    runner = local.DockerRunner(
        mounts=mounts,
        environment={"PYTHONPATH": ":".join(f"/src/{name}" for name in SOURCES[:3])},
        network_mode="none",
        user="0:0",  # the folder of the outputs is ours
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    )
    local.init(runner, pipeline_root=str(tmp_path / "root"), raise_on_error=True)
    load_component_from_file(str(tmp_path / "compiled" / "retrain.yaml"))(**parameters)
    assert set(found) == {*(step.name for step in RETRAIN), "report-registered"}
    assert found["attack"]["metrics"].metadata["clean_accuracy"] > 0.9
    matrix = found["attack"]["confusion_matrix"].metadata["confusionMatrix"]
    right, examples = (
        sum(row["row"][n] for n, row in enumerate(matrix["rows"])),
        sum(sum(r["row"]) for r in matrix["rows"]),
    )
    assert right / examples == pytest.approx(found["attack"]["metrics"].metadata["clean_accuracy"])
    assert found["register"]["model_version"] == 1
    (page,) = (tmp_path / "root").glob("*/report-registered/page")
    assert "digits: report of a run" in page.read_text()
