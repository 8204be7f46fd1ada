"""The `retrain` pipeline: from a delivery of data to a registered model. Wiring only.

    snapshot -> baseline -> schema, drift -> scan -> train -> backdoor, attack, certify -> gate -> register

`pr_gate`, for pull requests, is the same up to the verdict: it registers nothing.

The data checks stop the run before the expensive steps; the gate always succeeds and the pipeline branches on its
verdict. Content digests travel as parameters next to the artifacts, because KFP's cache does not see bytes. Snapshot
and baseline always look again: the path of a delivery may stay while its bytes change.
"""

from functools import partial
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
from holdfast.model.register.component import register
from holdfast.model.scan.component import scan
from holdfast.model.train.component import train
from holdfast_gates.component import gate
from holdfast_pipelines.wiring import inputs, never_cached, on_gpu, retried, sized, with_mlflow_login

CHECKPOINTS = "/tmp/holdfast/checkpoints"
"""Where train keeps its checkpoint in its container; mount a volume there and a retried pod resumes."""


def retrain(*, gpu: bool = False) -> GraphComponent:
    """The pipeline as an object that compiles and runs; with `gpu` the steps that compute ask for one."""
    return _pipeline("retrain", "Train, harden, judge and register a model.", gpu=gpu)


def pr_gate(*, gpu: bool = False) -> GraphComponent:
    """The same without its end: the verdict is all that comes of it."""
    return _pipeline("pr-gate", "Train, harden and judge a model; register nothing.", gpu=gpu, registers=False)


def _pipeline(name: str, description: str, *, gpu: bool, registers: bool = True) -> GraphComponent:
    computing = partial(_computing, gpu=gpu)

    @dsl.pipeline(name=f"holdfast-{name}", description=description)
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
        threads: int = 2,
        checkpoint: str = CHECKPOINTS,
        trust: str = "",
    ) -> None:
        compute: dict[str, Any] = {"seed": seed, "device": device, "threads": threads}
        data = never_cached(_reading(snapshot(config=snapshot_config)))
        champion = never_cached(_reading(baseline(**inputs(snapshot=data), name=name, tracking=tracking, **compute)))
        with_mlflow_login(champion)
        delivery = inputs(snapshot=data, baseline=champion)
        contract = _reading(schema(**delivery, config=schema_config))
        shift = _reading(drift(**delivery, config=drift_config, seed=seed))
        with dsl.If(contract.outputs["verdict"] != "fail"), dsl.If(shift.outputs["verdict"] != "fail"):
            rows = computing(scan(**inputs(snapshot=data), config=scan_config, **compute), "4G")
            fit = train(**delivery, **inputs(scan=rows), config=train_config, checkpoint=checkpoint, **compute)
            judged = inputs(model=retried(computing(fit, "8G")), snapshot=data)
            trigger = computing(backdoor(**judged, config=backdoor_config, **compute), "4G")
            pressure = computing(attack(**judged, **inputs(baseline=champion), config=attack_config, **compute), "8G")
            proof = computing(certify(**judged, config=certify_config, **compute), "8G")
            judged |= inputs(schema=contract, drift=shift, scan=rows, backdoor=trigger, attack=pressure, certify=proof)
            _conclude(judged, policy=policy, tracking=tracking, trust=trust, registers=registers)

    return pipeline


def _reading(task: dsl.PipelineTask) -> dsl.PipelineTask:
    return sized(task, cpu="1", memory="4G")


def _computing(task: dsl.PipelineTask, memory: str, *, gpu: bool) -> dsl.PipelineTask:
    return on_gpu(sized(task, cpu="2", memory=memory), gpu)


def _conclude(judged: dict[str, Any], *, policy: str, tracking: str, trust: str, registers: bool) -> None:
    """Judges the model by its evidence, and registers it where the verdict is pass."""
    decision = never_cached(sized(gate(**judged, policy=policy), cpu="1", memory="1G"))
    if not registers:
        return
    with dsl.If(decision.outputs["verdict"] == "pass"):
        kept = register(**judged, **inputs(decision=decision), policy=policy, tracking=tracking, trust=trust)
        with_mlflow_login(never_cached(sized(kept, cpu="1", memory="4G")))
