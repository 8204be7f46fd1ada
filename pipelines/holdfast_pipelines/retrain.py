"""The `retrain` pipeline: from a delivery of data to a registered model. Wiring only.

    snapshot -> baseline -> schema, drift -> scan -> train -> backdoor, attack, certify -> gate -> register

Where the policy or the workload's guard asks for them, `calibrate` and `extract` are made of the model, too.

`pr_gate`, for pull requests, is the same up to the verdict: it registers nothing.

The data checks stop the run before the expensive steps; the gate always succeeds and the pipeline branches on its
verdict. Content digests travel as parameters next to the artifacts, because KFP's cache does not see bytes. Snapshot
and baseline always look again: the path of a delivery may stay while its bytes change.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from holdfast.data.drift.component import drift
from holdfast.data.schema.component import schema
from holdfast.data.snapshot.component import snapshot
from holdfast.model.attack.component import attack
from holdfast.model.backdoor.component import backdoor
from holdfast.model.baseline.component import baseline
from holdfast.model.certify.component import certify
from holdfast.model.component import with_evidence
from holdfast.model.extract.component import extract
from holdfast.model.register.component import register
from holdfast.model.scan.component import scan
from holdfast.model.train.component import train
from holdfast.serving.guard.component import calibrate
from holdfast.steps import ON_REQUEST
from holdfast_gates.component import gate
from holdfast_pipelines.cluster import ClusterSettings
from holdfast_pipelines.report.task import report_judged, report_registered, report_stopped, with_artifacts
from holdfast_pipelines.wiring import Pods, inputs, never_cached, retried, with_mlflow_login

NOT_ASKED = "{}"
"""The section of a step that this pipeline may not make."""
CHECKPOINTS = "/tmp/holdfast/checkpoints"
"""Where train keeps its checkpoint in its container; mount a volume there and a retried pod resumes."""


def retrain(cluster: ClusterSettings | None = None, asked: Iterable[str] = ()) -> GraphComponent:
    """The pipeline as an object that compiles and runs; without settings of a cluster, for this machine.

    Args:
        cluster: what its pods get.
        asked: the names of the steps `ON_REQUEST` that it makes.
    """
    return _pipeline("retrain", "Train, harden, judge and register a model.", Pods(cluster), tuple(asked))


def pr_gate(cluster: ClusterSettings | None = None, asked: Iterable[str] = ()) -> GraphComponent:
    """The same without its end: the verdict is all that comes of it."""
    words = "Train, harden and judge a model; register nothing."
    return _pipeline("pr-gate", words, Pods(cluster), tuple(asked), registers=False)


def _pipeline(name: str, words: str, pods: Pods, asked: tuple[str, ...], *, registers: bool = True) -> GraphComponent:
    @dsl.pipeline(name=f"holdfast-{name}{'-guarded' if asked else ''}", description=words)
    @pods.telling
    def pipeline(
        name: str,
        tracking: str,
        policy: str,
        snapshot_config: str,
        schema_config: str,
        drift_config: str,
        scan_config: str,
        train_config: str,
        backdoor_config: str,
        attack_config: str,
        certify_config: str,
        seed: int = 0,
        device: str = "auto",
        threads: int = 1,
        checkpoint: str = CHECKPOINTS,
        trust: str = "",
        calibrate_config: str = NOT_ASKED,
        extract_config: str = NOT_ASKED,
        because: str = "",
    ) -> None:
        compute: dict[str, Any] = {"seed": seed, "device": device, "threads": threads}
        data = never_cached(pods.with_source_login(pods.reading(snapshot(config=snapshot_config))))
        delivery = _with_champion(pods, data, name=name, tracking=tracking, because=because, **compute)
        contract = pods.reading(schema(**delivery, config=schema_config))
        shift = pods.reading(drift(**delivery, config=drift_config, seed=seed))
        ending = _Ending(pods, name, delivery, inputs(schema=contract, drift=shift), seed, asked)
        with ending.unless_stopped_by(contract), ending.unless_stopped_by(shift):
            rows = pods.computing(scan(**inputs(snapshot=data), config=scan_config, **compute), "4G")
            given = {**delivery, **inputs(scan=rows), "config": train_config, "checkpoint": checkpoint, **compute}
            judged = inputs(model=retried(pods.training(train, given, CHECKPOINTS)), snapshot=data)
            sections = (backdoor_config, attack_config, certify_config, calibrate_config, extract_config)
            judged |= inputs(scan=rows, **_evidence(pods, asked, judged | compute, delivery, sections))
            ending.conclude(judged, registers, policy=policy, tracking=tracking, trust=trust)

    return pipeline


def _evidence(
    pods: Pods, asked: tuple[str, ...], given: dict[str, Any], champion: dict[str, Any], sections: tuple[str, ...]
) -> dict[str, dsl.PipelineTask]:
    """By role, what is found out about the model; the last two steps only where they are asked for."""
    of_backdoor, of_attack, of_certify, *of_others = sections
    others = dict(zip((calibrate, extract), of_others, strict=True))
    made = [pods.computing(step(**given, config=text), "4G") for step, text in others.items() if step.name in asked]
    return {
        "backdoor": pods.computing(backdoor(**given, config=of_backdoor), "4G"),
        "attack": pods.shared(attack, {**given, **champion, "config": of_attack}, "8G"),
        "certify": pods.shared(certify, {**given, "config": of_certify}, "8G"),
        **{step.role: task for step in ON_REQUEST for task in made if task.name == step.name},
    }


def _with_champion(pods: Pods, data: dsl.PipelineTask, **given: Any) -> dict[str, Any]:
    champion = _at_mlflow(pods.reading(baseline(**inputs(snapshot=data), **given)))
    return inputs(snapshot=data, baseline=champion)


@dataclass(frozen=True)
class _Ending:
    """What ends a run: a verdict, on a cluster a page, and a registered model or a reason.

    On a cluster each condition has both of its branches: `kfp.local` alone takes one without for "not taken".
    """

    pods: Pods
    name: str
    delivery: dict[str, Any]
    """The snapshot and the champion."""
    checks: dict[str, Any]
    """What was found about them."""
    seed: int
    asked: tuple[str, ...]

    def conclude(self, model: dict[str, Any], registers: bool, *, policy: str, tracking: str, trust: str) -> None:
        """Judges the model by its evidence, and registers it where the verdict is pass."""
        judged = model | self.checks
        more = [step.role for step in ON_REQUEST if step.name in self.asked]
        judges, keeps = with_evidence(gate, more), with_evidence(register, more)
        decided = never_cached(self.pods.sized(judges(**judged, policy=policy), cpu="1", memory="1G"))
        if not registers and not self.pods.on_cluster:
            return
        found = self.delivery | judged | inputs(decision=decided)
        with dsl.If(decided.outputs["verdict"] == "pass"):
            if registers:
                kept = keeps(**judged, **inputs(decision=decided), policy=policy, tracking=tracking, trust=trust)
                _at_mlflow(self.pods.sized(kept, cpu="1", memory="4G"))
                if self.pods.on_cluster:
                    self._page(report_registered, found | inputs(register=kept))
            else:
                self._page(report_judged, found)
        if self.pods.on_cluster:
            with dsl.Else():
                page = self._page(report_judged, found)
                why = "The model did not pass, and was not registered: see the decision of the step gate."
                self.pods.refusing(decided, self.name, why, page)

    @contextmanager
    def unless_stopped_by(self, check: dsl.PipelineTask) -> Iterator[None]:
        """For what is done with a delivery only where this check of it did not fail."""
        with dsl.If(check.outputs["verdict"] != "fail"):
            yield
        if self.pods.on_cluster:
            with dsl.Else():
                page = self._page(report_stopped, self.delivery | self.checks)
                why = f"The delivery was stopped, and nothing was trained: see the report of the step {check.name}."
                self.pods.refusing(check, self.name, why, page)

    def _page(self, report: Any, found: dict[str, Any]) -> dsl.PipelineTask:
        more = [step.role for step in ON_REQUEST if step.role in found]
        made = with_artifacts(report, more)(**found, seed=self.seed)
        return never_cached(self.pods.sized(made, cpu="1", memory="2G", step="report"))


def _at_mlflow(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """For steps that ask MLflow: a short outage of it is not to cost the run."""
    return with_mlflow_login(never_cached(retried(task)))
