"""What the pipelines set for every task: its inputs with their digests, its size, retries, secrets."""

from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.structures import ResourceSpec

MLFLOW_SECRET = "holdfast-mlflow"
"""Kubernetes secret (optional) with the keys `username`, `password` and `token` of the MLflow server."""


def inputs(**tasks: dsl.PipelineTask) -> dict[str, Any]:
    """For every role the artifact of its task and, as `ROLE_digest`, the digest that the reader must find."""
    artifacts = {role: task.outputs["artifact"] for role, task in tasks.items()}
    return artifacts | {f"{role}_digest": task.outputs["digest"] for role, task in tasks.items()}


def sized(task: dsl.PipelineTask, *, cpu: str, memory: str) -> dsl.PipelineTask:
    """Requests `cpu` cores and `memory`, which is also the limit.

    As `set_cpu_request` and its like do; but each of these reads the source of every frame above it (`inspect.stack`)
    for a message, half a second in a pipeline.
    """
    task.container_spec.resources = ResourceSpec(cpu_request=cpu, memory_request=memory, memory_limit=memory)
    return task


def on_gpu(task: dsl.PipelineTask, gpu: bool) -> dsl.PipelineTask:
    """Asks for one GPU where `gpu`."""
    return task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1) if gpu else task


def retried(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Tries twice more after a minute and after two: nodes are drained, spot machines taken away."""
    return task.set_retry(2, backoff_duration="60s", backoff_factor=2, backoff_max_duration="600s")


def never_cached(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """For steps that look at, or change, something outside their inputs."""
    return task.set_caching_options(False)


def with_mlflow_login(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Gives the task the credentials that the MLflow client reads, where the cluster has them."""
    variables = {key: f"MLFLOW_TRACKING_{key.upper()}" for key in ("username", "password", "token")}
    kubernetes.use_secret_as_env(task, MLFLOW_SECRET, variables, optional=True)
    return task
