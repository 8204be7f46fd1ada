"""`holdfast rollout guard`: watches a promoted model, and takes it back by proof."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import STATE, Config, Tracking, TrustFileOption, read_section
from holdfast.progress import say
from holdfast.serving.rollout.command import ModelName

if TYPE_CHECKING:
    from holdfast.registry import Version
    from holdfast.serving.operation.loop import SignalSources
    from holdfast.serving.operation.observe import AttackProber
    from holdfast.serving.operation.take_back import InOperation
    from holdfast.serving.rollout.cluster.target import Target
    from holdfast.workload.schema import OperationConfig

DIGEST = "{digest}"
"""In a target file: the digest of the model that the traffic goes back to."""
WAY_BACK = f"In its candidate, {DIGEST} is the model that traffic goes back to."


class WallClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Returns after so long."""
        time.sleep(seconds)


def watch_promoted(
    name: ModelName,
    tracking: Tracking,
    config: Config = "{}",
    target: Annotated[Path | None, typer.Option(help=f"Target file; its `champion` is watched. {WAY_BACK}")] = None,
    store: Annotated[Path | None, typer.Option(help="Store that the version before is copied to.")] = None,
    kept: Annotated[Path | None, typer.Option(help="The monitor's folder of reports, for a proven loss.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="URL of `infer` of what is served, for attack success.")] = None,
    state: Annotated[Path | None, typer.Option(help="File with the evidence; .holdfast/operation/NAME.json.")] = None,
    seconds: Annotated[float, typer.Option(help="Watch for so long; 0 looks once.", min=0)] = 0.0,
    only_registry: Annotated[
        bool, typer.Option("--only-registry", help="Move no traffic: what serves follows the alias `champion`.")
    ] = False,
    trust: TrustFileOption = None,
) -> None:
    """Watch the champion after its promotion, and take it back to `previous` by proof; exit code 3 where it was."""
    if (store is not None) == only_registry or not (only_registry or target):
        raise typer.BadParameter("expected --target and --store, or --only-registry", param_hint="--store")
    from holdfast.serving.operation.loop import OperationActions, guard
    from holdfast.serving.operation.take_back import InOperation
    from holdfast.workload.schema import OperationConfig

    plan = read_section(config, OperationConfig, lambda workload: workload.operation)
    running = InOperation.of(tracking, name)
    text = None if target is None else target.read_text()
    mover = None if text is None or store is None else _mover(running, text, store, trust)
    actions = OperationActions(
        lambda why: running.take_back(why, time.time(), mover), lambda line: say(f"operation: {line}")
    )
    sources = _sources(plan, running, _target(text, running.model), kept, endpoint)
    place = state or Path(STATE) / "operation" / f"{name}.json"
    if guard(running.model, plan, sources, actions, place, WallClock(), seconds=seconds) == "rolled-back":
        say(f"operation: {name}: version {running.previous.number} is the champion again")
        raise typer.Exit(3)


def _target(text: str | None, digest: str) -> "Target | None":
    """The target file with a model's digest in place of `{digest}`."""
    if text is None:
        return None
    from holdfast.serving.rollout.cluster.target import Target
    from holdfast.workload.yaml import parse_yaml

    return parse_yaml(text.replace(DIGEST, digest), Target, name="--target")


def _mover(running: "InOperation", text: str, store: Path, trust: Path | None) -> "Callable[[Version], None]":
    """Sends the traffic to a version, whose bundle is checked on its way to the store."""

    def move(version: "Version") -> None:
        from holdfast.attestation.demands import Demands
        from holdfast.errors import WorkloadError
        from holdfast.registry import DECISION
        from holdfast.serving.operation.take_back import move_on_cluster
        from holdfast.serving.rollout.cluster.open import reach
        from holdfast.serving.store import put

        if DIGEST not in text:
            raise WorkloadError(f"--target: expected {DIGEST} in the candidate's address, found none")
        stored = put(running.tracking, running.name, version.number, store, Demands.of(trust, incumbent=True))
        found = _target(text, stored.digest)
        assert found is not None
        move_on_cluster(found, reach(found), version.tags.get(DECISION, ""))

    return move


def _sources(
    plan: "OperationConfig", running: "InOperation", target: "Target | None", kept: Path | None, endpoint: str | None
) -> "SignalSources":
    from holdfast.serving.operation.loop import SignalSources
    from holdfast.serving.operation.observe import FromPrometheus

    prober, gated = _prober(running, endpoint) if endpoint and "attack" in plan.guarded else (None, None)
    proofs = []
    if kept is not None and "loss" in plan.guarded:
        proofs.append(lambda: _loss(kept / running.name, running.model))
    if target is not None and "extraction" in plan.guarded:
        proofs.append(lambda: _extraction(target, plan))
    return SignalSources(
        counters=None if target is None else FromPrometheus(target.metrics, plan.slow_ms),
        probes=None if prober is None else prober.look,
        max_attack=None if gated is None else min(gated + plan.max_attack_excess, 0.999),
        proofs=tuple(proofs),
    )


def _loss(folder: Path, model: str) -> str | None:
    """What labels prove about this very model, by the newest report; an alarm of its inputs proves nothing."""
    from holdfast.artifacts.documents import MonitorReport
    from holdfast.monitor.kept import newest

    found = newest(folder, MonitorReport, lambda one: one.model == model)
    labels = [one for one in found.document.stages if one.stage == "labels" and one.alarm] if found else []
    return f"loss: {labels[0].reason}, evidence {labels[0].evidence:.3g}" if labels else None


def _extraction(target: "Target", plan: "OperationConfig") -> str | None:
    from holdfast.serving.operation.observe import alarmed_clients

    found = alarmed_clients(target.metrics, time.time())
    most = plan.max_alarmed_clients
    return (
        f"extraction: the guard has an alarm about {found} clients, at most {most} are allowed"
        if found > most
        else None
    )


def _prober(running: "InOperation", endpoint: str) -> "tuple[AttackProber | None, float | None]":
    """The adversarial rows that the champion's attack step kept, and how many of them fooled it then."""
    import numpy as np

    from holdfast import registry
    from holdfast.serving.operation.observe import AttackProber

    with registry.fetched(running.tracking, running.name, running.champion.number) as bundle:
        if bundle is None or not (bundle.folder / "attacks.npz").is_file():
            say("operation: the champion came without adversarial rows: attack success is not watched")
            return None, None
        with np.load(bundle.path("attacks.npz"), allow_pickle=False) as held:
            x, y, fooled = held["x"], held["y"], held["fooled"]
        return AttackProber(endpoint, x, y, len(bundle.model.document.classes)), float(fooled.mean())
