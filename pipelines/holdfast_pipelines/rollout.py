"""The `rollout` pipeline: live traffic to a registered version, step by step. Wiring only.

It starts from a registered version, so that a person can approve between the two pipelines.
"""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from holdfast.serving.rollout.component import rollout as roll_out
from holdfast_pipelines.cluster import ClusterSettings
from holdfast_pipelines.wiring import Pods, never_cached, with_mlflow_login


def rollout(cluster: ClusterSettings | None = None) -> GraphComponent:
    """The pipeline as an object that compiles and runs."""

    @dsl.pipeline(name="holdfast-rollout", description="Shadow, canary, then promotion or rollback.")
    def pipeline(
        name: str,
        version: int,
        tracking: str,
        config: str = "{}",
        driver: str = "envoy",
        target: str = "",
        seed: int = 0,
        game_day: str = "",
        trust: str = "",
    ) -> None:
        moved = roll_out(
            name=name,
            version=version,
            tracking=tracking,
            config=config,
            driver=driver,
            target=target,
            seed=seed,
            game_day=game_day,
            trust=trust,
        )
        with_mlflow_login(never_cached(Pods(cluster).sized(moved, cpu="2", memory="4G")))

    return pipeline
