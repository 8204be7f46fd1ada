"""The `monitor` pipeline: a report about the champion, alerts, and a request where one is asked for. Wiring only.

It runs on a schedule (`holdfast submit --pipeline monitor`). The log, labels and what is kept from run to run lie on a
volume of the steps `monitor` and `request`. A run with an alarm ends as `when_alarmed` of the settings has it.
"""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from holdfast.monitor.component import monitor as watch
from holdfast.monitor.request.component import request
from holdfast_pipelines.cluster import ClusterSettings
from holdfast_pipelines.wiring import Pods, inputs, never_cached, with_mlflow_login


def monitor(cluster: ClusterSettings | None = None) -> GraphComponent:
    """The pipeline as an object that compiles and runs."""
    pods = Pods(cluster)

    @dsl.pipeline(name="holdfast-monitor", description="Watch the champion, and ask for a retraining.")
    @pods.telling_failures
    def pipeline(name: str, tracking: str, config: str = "{}", trust: str = "", every: str = "1h") -> None:
        report = never_cached(pods.reading(watch(name=name, tracking=tracking, config=config, trust=trust)))
        with_mlflow_login(report)
        pods.alerting(report, name, every)
        with dsl.If(report.outputs["asks"] == "yes"):
            never_cached(pods.sized(request(**inputs(report=report), config=config), cpu="1", memory="1G"))
        if pods.on_cluster:
            with dsl.If(report.outputs["verdict"] == "fail"):
                pods.alarmed(report, name)

    return pipeline
