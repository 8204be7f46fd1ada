"""The rollout step on a cluster: the same plan, machine and controller; a target file says where.

The traffic is the users' own, its counters come from the target's metrics, and the state lives in the object that is
rolled out, so that any replica can go on. What stays on this machine (`state_folder`) is for people.
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from holdfast.artifacts.documents import GateDecision, RolloutRecord
from holdfast.artifacts.folder import Artifact, load, replace_file
from holdfast.errors import RefusedError, RolloutError
from holdfast.serving.rollout.conduct import errands
from holdfast.serving.rollout.conduct.controller import Controller, Pace, Wish
from holdfast.serving.rollout.conduct.journal import JOURNAL, TIMELINE, state_folder
from holdfast.serving.rollout.conduct.plan import plan_of
from holdfast.serving.rollout.conduct.wishes import TOLD, Wishes, told_to_stop
from holdfast.serving.rollout.contest import (
    Contest,
    contest_of,
    fetch,
    hand_in,
    note_of,
    require_fresh,
    say_starting,
    status_of,
)
from holdfast.serving.rollout.drivers.cluster import Cluster, open_cluster, prepare, reach
from holdfast.serving.rollout.drivers.driver import Provider
from holdfast.serving.rollout.drivers.kube import Kube
from holdfast.serving.rollout.drivers.target import Target
from holdfast.serving.rollout.judge.counters import Blind, Snapshot
from holdfast.serving.rollout.judge.machine import Rollout
from holdfast.serving.rollout.record import OUTCOMES, Carried, reason_of, write
from holdfast.serving.rollout.tell import log, metrics, status
from holdfast.serving.rollout.tell.announce import Announced, Several
from holdfast.serving.rollout.tell.timeline import Timeline
from holdfast.workload import RolloutPlan

PACE = Pace(look=5.0, checkpoint=30.0, gap=60.0, pending=600.0, promoting=600.0, aftermath=0.0)


@dataclass
class Counted:
    """The users' requests as the metrics have them."""

    sent: int = 0
    """Live requests that were routed; what both arms answered, where the metrics do not tell."""
    failed: int = 0
    """Failures at either arm, those that a retry absorbed too: at least as many as clients saw."""

    def looked(self, rollout: Rollout, seen: Snapshot | Blind) -> None:
        """Takes the counts over."""
        self.sent = rollout.total.routed or rollout.total.champion.answered + rollout.total.live
        self.failed = min(rollout.total.candidate.failed + rollout.total.champion.failed, self.sent)

    def moved(self, before: Rollout, after: Rollout) -> None:
        """Takes the counts over."""
        self.looked(after, Blind(0.0, ""))

    def paged(self, rollout: Rollout, reason: str) -> None:
        """Counts nothing."""


class Leaving(Wishes):
    """A pod that is told to stop only leaves: another replica goes on, or the watchdog takes the weight back."""

    def __call__(self) -> Wish | None:
        """As `Wishes`, but a signal ends this driver and not the rollout.

        Raises:
            RolloutError: the signal came.
        """
        if self.stop.event.is_set():
            raise RolloutError(f"{self.state}: {TOLD}; the rollout waits for another driver, or for its watchdog")
        return super().__call__()


@dataclass(frozen=True)
class Place:
    """Where a rollout happens; tests bring their own counters and pace."""

    target: Target
    kube: Kube
    provider: Provider | None = None
    pace: Pace = PACE

    @classmethod
    def of(cls, target: Target) -> "Place":
        """The cluster that a target names.

        Raises:
            RolloutError, WorkloadError: there is no way to it.
        """
        return cls(target, reach(target))


@errands.office()
def rollout_on(
    place: Place,
    out: Path,
    *,
    name: str,
    version: int,
    tracking: str,
    config: RolloutPlan,
    metrics_port: int | None = None,
) -> Artifact[RolloutRecord]:
    """Rolls version `version` of model `name` out on a cluster; writes the record whatever the outcome.

    Run again after a crash, on this machine or another, it goes on where the object says that it stood.

    Raises:
        RefusedError: no passing verdict for these very bytes, or the target serves other bytes.
        RolloutError: the cluster, its object or its counters cannot be used; or the process was told to stop.
        RegistryError: MLflow cannot be reached.
    """
    state = state_folder(out)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    say_starting(state, name, version)
    fetched = fetch(tracking, name, version, state)
    contest = replace(contest_of(fetched, name, version, None, config), metrics_port=metrics_port)
    require_fresh(contest, state, config)
    require_these_bytes(place.target, contest)
    promote = partial(errands.promote, tracking, name, version)
    with told_to_stop() as stop:
        decision = load(contest.candidate.served.decision, GateDecision).digest
        cluster = open_cluster(place.target, place.kube, decision, place.provider)
        prepare(cluster)
        about = status_of(contest, config, cluster.store.fence, round(time.time(), 3))
        wishes = Leaving(state, stop, contest.expires_at)
        carried = _conduct(contest, cluster, place.pace, wishes, about, config=config, promote=promote)
        note = note_of(contest, about, OUTCOMES[carried.rollout.state][0], reason_of(carried))
        errands.leave_note(out, tracking, name, note)
        artifact = write(contest, carried, out, state)
        shutil.rmtree(state)
    hand_in(out)
    return artifact


def require_these_bytes(target: Target, contest: Contest) -> None:
    """What the cluster loads must be addressed by the digest that the gate judged.

    Raises:
        RefusedError: it is not.
    """
    section = target.seldon_v1 or target.seldon_v2
    assert section is not None  # the target's model says so
    digest, served = contest.candidate.model.digest, contest.candidate.served
    found = list(_addresses(section.candidate.model_dump(mode="json")))
    if not found or not all(digest in address for address in found):
        raise RefusedError(
            f"target: expected the candidate's address to hold the digest of {served.name} version {served.version}, "
            f"found {', '.join(found) or 'no address'}; serve it from a content-addressed place such as "
            f".../sha256/{digest}"
        )


def _addresses(value: object) -> Iterator[str]:
    """Every place that the candidate would be loaded from, however deep in its graph."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key in ("modelUri", "storageUri") and isinstance(part, str):
                yield part
            else:
                yield from _addresses(part)
    elif isinstance(value, list):
        for part in value:
            yield from _addresses(part)


def _conduct(
    contest: Contest,
    cluster: Cluster,
    pace: Pace,
    wishes: Wishes,
    about: status.Status,
    *,
    config: RolloutPlan,
    promote: "partial[None]",
) -> Carried:
    state, counted = wishes.state, Counted()
    timeline = Timeline.at(state / TIMELINE, lambda: counted)
    listeners = (
        status.StatusFile(state / status.FILE, counted, about),
        log.Log(state / log.FILE, about.rollout, about.driver.fence),
        metrics.Metrics(state / metrics.FILE, counted, {"name": about.name, "version": str(about.version)}),
    )
    # Nobody sends one row to both arms here: predictions are not compared, failures and latency are.
    plan = plan_of(config, classes=2, attacks=None, probation=contest.champion is None, probed=False)
    watcher, store = Several((counted, timeline, *listeners)), Announced(cluster.store, listeners)
    with metrics.served(listeners[-1], contest.metrics_port):
        ended = Controller(
            plan, cluster.driver, store, wishes.stop, watcher, wishes=wishes, mirror=promote, pace=pace
        ).run()
    lines = "".join(f"{json.dumps(line)}\n" for line in cluster.store.history())
    replace_file(state / JOURNAL, lines.encode())
    return Carried(ended, timeline, counted.sent, counted.failed, None, "(on the cluster: kubectl logs)")
