"""The `monitor` pipeline: a report about the champion, alerts, and a request where one is asked for. Wiring only.

It runs on a schedule (`holdfast submit --pipeline monitor`). The log, labels and what is kept from run to run lie on a
volume of the steps `monitor` and `request`. A run with an alarm ends as `when_alarmed` of the settings has it. Where
`start` is given, a request starts `retrain`.
"""

# mypy: disable-error-code="valid-type"
# kfp declares outputs by calls in annotations.
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.graph_component import GraphComponent

from holdfast import containers
from holdfast.monitor.component import monitor as watch
from holdfast.monitor.request.component import request
from holdfast.monitor.starting import TOKEN
from holdfast_pipelines.cluster import ClusterSettings
from holdfast_pipelines.wiring import Pods, inputs, never_cached, with_mlflow_login

_SMALL: dict[str, Any] = {"cpu": "100m", "memory": "1G", "step": "notify"}
KFP_SECRET = "holdfast-kfp"
"""Kubernetes secret (optional) with the key `token` for the API of Kubeflow Pipelines."""


@dsl.container_component
def start_retrain(request: dsl.Input[dsl.Artifact], request_digest: str, start: str) -> dsl.ContainerSpec:
    """Starts the pipeline `retrain` because of a request."""
    return dsl.ContainerSpec(
        image=containers.SERVING,
        command=["python", "-m", "holdfast", "monitor", "start"],
        args=[*containers.inputs(request=(request, request_digest)), *containers.options(start=start)],
    )


def monitor(cluster: ClusterSettings | None = None) -> GraphComponent:
    """The pipeline as an object that compiles and runs."""
    pods = Pods(cluster)

    @dsl.pipeline(name="holdfast-monitor", description="Watch the champion, and ask for a retraining.")
    @pods.telling_failures
    def pipeline(
        name: str, tracking: str, config: str = "{}", trust: str = "", every: str = "1h", start: str = ""
    ) -> None:
        report = never_cached(pods.reading(watch(name=name, tracking=tracking, config=config, trust=trust)))
        with_mlflow_login(report)
        pods.alerting(report, name, every)
        with dsl.If(report.outputs["asks"] == "yes"):
            asked = never_cached(pods.sized(request(**inputs(report=report), config=config), cpu="1", memory="1G"))
            if pods.on_cluster:
                with dsl.If(start != ""):
                    _with_token(never_cached(pods.sized(start_retrain(**inputs(request=asked), start=start), **_SMALL)))
        if pods.on_cluster:
            with dsl.If(report.outputs["verdict"] == "fail"):
                pods.alarmed(report, name)

    return pipeline


def _with_token(task: dsl.PipelineTask) -> dsl.PipelineTask:
    kubernetes.use_secret_as_env(task, KFP_SECRET, {"token": TOKEN}, optional=True)
    return task
