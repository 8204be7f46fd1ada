"""The rollout step: fetches candidate and champion, moves traffic, promotes or rolls back; one sequence for any place.

What differs between this machine and a cluster is a `Stage`. Run again after a crash, a rollout goes on where its stage
has kept that it was. This process stays small: MLflow, the servers and the traffic are others.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import RolloutRecord
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.errors import RolloutError
from holdfast.registry.notes import Note
from holdfast.serving.predictor.game_day import GameDay
from holdfast.serving.rollout import registry_worker
from holdfast.serving.rollout.contract.counters import Probes
from holdfast.serving.rollout.engine.controller import Controller
from holdfast.serving.rollout.engine.journal import JOURNAL, TIMELINE, state_folder
from holdfast.serving.rollout.engine.machine import State
from holdfast.serving.rollout.engine.plan import plan_of
from holdfast.serving.rollout.engine.requests import TOLD, told_to_stop
from holdfast.serving.rollout.local.run import local_stage
from holdfast.serving.rollout.matchup import (
    Matchup,
    fetch,
    forget,
    hand_in,
    matchup_of,
    note_of,
    policy_plan,
    require_fresh,
    say_starting,
    status_of,
)
from holdfast.serving.rollout.record import OUTCOMES, Carried, cause_of, reason_of, write, write_serving
from holdfast.serving.rollout.reporting import log, metrics, status
from holdfast.serving.rollout.reporting.announce import NotifyingStore, WatcherGroup
from holdfast.serving.rollout.reporting.timeline import Sent, Timeline
from holdfast.serving.rollout.stage import OpenStage, Place, Stage
from holdfast.workload.schema import RolloutPlan

THIS_MACHINE = Place(local_stage)


@registry_worker.shared_worker()
def rollout(
    name: str,
    out: Path,
    *,
    version: int,
    tracking: str,
    config: RolloutPlan,
    seed: int,
    game_day: str | None = None,
    metrics_port: int | None = None,
    at: Place = THIS_MACHINE,
    trust: Path | None = None,
) -> Artifact[RolloutRecord]:
    """Rolls version `version` of model `name` out against the champion; writes the record in any case.

    Without a champion, the stable arm is a second server of the candidate, and the candidate is on probation: held to
    absolute limits as well as compared. After a crash, the same call goes on where the rollout was, on a cluster also
    on another machine. What is the champion already is not rolled out, unless a fault is to be planted in it, or the
    place wants it `again`. Keys that `config` leaves out are those of the policy under which the gate passed the
    candidate. `trust` is a trust policy: whose signatures must be behind both versions.

    Raises:
        RefusedError: a model without a passing verdict for its very bytes, with one that is too old, or with the one
            under which it was rolled back; or the target of a cluster serves other bytes.
        RolloutError: the version does not exist, a server does not start, the place refuses the plan or cannot be
            used, or the process was told to stop.
        RegistryError: MLflow cannot be reached.
    """
    if game_day:
        GameDay.parse(game_day)
    state = state_folder(out)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    say_starting(state, name, version)
    fetched = fetch(tracking, name, version, state, trust)
    policy = policy_plan(Ref(fetched.candidate / "decision"))
    config = _required(config.over(policy), at, state)
    matchup = matchup_of(fetched, name, version, game_day, config)
    matchup = replace(matchup, metrics_port=metrics_port, policy=policy)
    require_fresh(matchup, state, config)
    if fetched.serving and not (game_day or at.again or (state / JOURNAL).exists()):
        artifact = write_serving(matchup, out)
        shutil.rmtree(state)
        return artifact
    artifact = run_rollout(
        matchup,
        out,
        config=config,
        seed=seed,
        promote=partial(registry_worker.promote, tracking, name, version),
        note=partial(registry_worker.leave_note, out, tracking, name),
        open_stage=at.open,
    )
    hand_in(out)
    return artifact


def _required(config: RolloutPlan, at: Place, state: Path) -> RolloutPlan:
    """The plan, after the place had nothing against it; a refused one leaves no folder."""
    try:
        at.require(config)
    except RolloutError:
        forget(state)
        raise
    return config


def run_rollout(
    matchup: Matchup,
    out: Path,
    *,
    config: RolloutPlan,
    seed: int,
    promote: Callable[[], None],
    note: Callable[[Note], None] = lambda note: None,
    open_stage: OpenStage = local_stage,
) -> Artifact[RolloutRecord]:
    """Carries the rollout out and writes its record.

    Args:
        matchup: candidate, champion, and the rows that they are compared on.
        out: of the record.
        config: the plan.
        seed: of the traffic.
        promote: called once the last step has passed; idempotent.
        note: called with the outcome before the rollout's folder is given up; idempotent.
        open_stage: where.
    """
    state = state_folder(out)
    with told_to_stop() as stop, open_stage(matchup, state, stop) as stage:
        about = status_of(matchup, config, stage.store.fence, stage.began)
        status.write(state / status.FILE, about)
        carried = _carry_out(stage, matchup, about, config=config, seed=seed, promote=promote)
        if stage.requests.stopped and carried.rollout.state is not State.PROMOTED:
            note(note_of(matchup, about, "stopped", TOLD, Cause.OPERATOR))
            stage.put_aside()
            raise RolloutError(
                f"{out}: {TOLD}; the candidate is out, the champion was not moved; "
                "the same command starts it again as it is"
            )
        note(note_of(matchup, about, OUTCOMES[carried.rollout.state][0], reason_of(carried), cause_of(carried)))
        artifact = write(matchup, carried, out, state)
        if carried.rollout.state is not State.PROMOTED:
            stage.not_promoted()
        shutil.rmtree(state)
    return artifact


def _carry_out(
    stage: Stage,
    matchup: Matchup,
    about: status.Status,
    *,
    config: RolloutPlan,
    seed: int,
    promote: Callable[[], None],
) -> Carried:
    state = stage.requests.state
    with stage.traffic(config, seed) as traffic:
        sender, counts = traffic.sender, traffic.counts
        timeline = Timeline.at(state / TIMELINE, lambda: counts)
        plan = plan_of(
            config,
            classes=matchup.classes,
            attacks=sender.offline() if sender else None,
            probation=matchup.champion is None,
            probed=sender is not None,
        )
        listeners = _listeners(state, counts, about)
        with metrics.served(listeners[-1], matchup.metrics_port):
            ended = Controller(
                plan,
                traffic.driver,
                NotifyingStore(stage.store, listeners),
                stage.requests.stop,
                WatcherGroup((*traffic.watchers, timeline, *listeners)),
                requests=stage.requests,
                probes=sender.probes if sender else Probes,
                traffic_lag=traffic.lag,
                mirror=promote,
                pace=stage.pace,
            ).run()
    seconds = None
    if traffic.fault_at is not None and timeline.weight_zero_at is not None:
        seconds = round(timeline.weight_zero_at - traffic.fault_at, 3)
    return Carried(ended, config, timeline, counts.sent, counts.failed, seconds, traffic.tail)


def _listeners(
    state: Path, counts: Sent, about: status.Status
) -> tuple[status.StatusFile, log.Log, metrics.MetricsFile]:
    return (
        status.StatusFile(state / status.FILE, counts, about),
        log.Log(state / log.FILE, about.rollout, about.driver.fence),
        metrics.MetricsFile(state / metrics.FILE, counts, {"name": about.name, "version": str(about.version)}),
    )
