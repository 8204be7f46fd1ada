"""A cluster as the place of the rollout step, where a target file has it.

The traffic is the users' own and its counters come from the target's metrics; probes go to the target's addresses. The
state lives in the object that is rolled out, so that any replica can go on. What stays on this machine (`state_folder`)
is for people.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from holdfast.artifacts.documents import GateDecision
from holdfast.artifacts.folder import load, replace_file
from holdfast.errors import FencedError, RefusedError, RolloutError
from holdfast.kubernetes.api import Kube
from holdfast.progress import say
from holdfast.serving.rollout.cluster.open import Cluster, open_cluster, prepare, reach
from holdfast.serving.rollout.cluster.table import DRIVERS
from holdfast.serving.rollout.cluster.target import Probing, Target
from holdfast.serving.rollout.contract.counters import NoData, Observation
from holdfast.serving.rollout.contract.driver import Provider
from holdfast.serving.rollout.engine.controller import OperatorRequest, Pace
from holdfast.serving.rollout.engine.journal import JOURNAL
from holdfast.serving.rollout.engine.machine import TERMINAL, Rollout, State
from holdfast.serving.rollout.engine.requests import TOLD, OperatorRequests, Stop
from holdfast.serving.rollout.matchup import Matchup, require_same_contract
from holdfast.serving.rollout.stage import Place, Stage, Traffic
from holdfast.serving.rollout.traffic.sender import WARM, Load, Sender, Unpairing, sending
from holdfast.workload.schema import RolloutPlan

_ENDING = frozenset(State) - {State.PENDING, State.SHADOW, State.CANARY}
"""States in which the arms are not apart any more, or soon will not be."""
PACE = Pace(interval=5.0, checkpoint=30.0, gap=60.0, pending=600.0, promoting=600.0, aftermath=0.0)


@dataclass
class Counted:
    """The users' requests as the metrics have them."""

    sent: int = 0
    """Live requests that were routed; what both arms answered, where the metrics do not tell."""
    failed: int = 0
    """Failures at either arm, those that a retry absorbed too: at least as many as clients saw."""

    def observed(self, rollout: Rollout, seen: Observation) -> None:
        """Takes the counts over."""
        self.sent = rollout.total.routed or rollout.total.champion.answered + rollout.total.live
        self.failed = min(rollout.total.candidate.failed + rollout.total.champion.failed, self.sent)

    def moved(self, before: Rollout, after: Rollout) -> None:
        """Takes the counts over."""
        self.observed(after, NoData(0.0, ""))

    def paged(self, rollout: Rollout, reason: str) -> None:
        """Counts nothing."""


class PodRequests(OperatorRequests):
    """Requests in a pod: a signal ends the pod only; another replica goes on, or the watchdog takes the weight back."""

    def __call__(self) -> OperatorRequest | None:
        """The next request; a signal ends this driver and not the rollout.

        Raises:
            RolloutError: the signal came.
        """
        if self.stop.event.is_set():
            raise RolloutError(f"{self.state}: {TOLD}; the rollout waits for another driver, or for its watchdog")
        return super().__call__()


@dataclass(frozen=True)
class TargetCluster:
    """A target and its cluster; tests bring their own counters and pace."""

    target: Target
    kube: Kube
    provider: Provider | None = None
    pace: Pace = PACE

    @classmethod
    def of(cls, target: Target) -> "TargetCluster":
        """The cluster that a target names.

        Raises:
            RolloutError, WorkloadError: there is no way to it.
        """
        return cls(target, reach(target))

    def place(self) -> Place:
        """The place for a rollout; it goes on from the state that the object has, on whichever machine it runs."""
        return Place(partial(cluster_stage, self), partial(require_shadow, self.target), again=True)


@contextmanager
def cluster_stage(at: TargetCluster, matchup: Matchup, state: Path, stop: Stop) -> Iterator[Stage]:
    """The target's object, under a fence of our own, with the candidate there.

    Raises:
        RefusedError: the target serves other bytes than those that the gate judged.
        RolloutError: the models' contracts differ, or the object cannot be had.
    """
    require_these_bytes(at.target, matchup)
    require_same_contract(matchup)
    decision = load(matchup.candidate.served.decision, GateDecision).digest
    cluster = open_cluster(at.target, at.kube, decision, at.provider)
    prepare(cluster)
    requests = PodRequests(state, stop, matchup.expires_at)
    traffic = partial(_traffic, at.target.probes, matchup, cluster, requests)
    began = round(time.time(), 3)
    yield Stage(cluster.store, requests, began, traffic, at.pace, not_promoted=partial(_free, cluster))


@contextmanager
def _traffic(
    probes: Probing | None,
    matchup: Matchup,
    cluster: Cluster,
    requests: OperatorRequests,
    config: RolloutPlan,
    seed: int,
) -> Iterator[Traffic]:
    """The users' own; what is sent here are probes only."""
    counted = Counted()
    with probing(probes, matchup, cluster, requests, seed=seed) as sender:
        unpairing = (Unpairing(sender, _ENDING),) if sender else ()
        yield Traffic(cluster.driver, counted, sender, (counted, *unpairing), tail="(on the cluster: kubectl logs)")
        lines = "".join(f"{json.dumps(line)}\n" for line in cluster.store.history())
        replace_file(requests.state / JOURNAL, lines.encode())


def _free(cluster: Cluster) -> None:
    """Lets the same rollout start again, now that its end is on record."""
    try:
        cluster.store.recorded()
    except (RolloutError, FencedError) as error:
        say(f"rollout: {error}; the next start writes the record of this end once more, the one after it starts again")


def require_these_bytes(target: Target, matchup: Matchup) -> None:
    """What the cluster loads must be addressed by the digest that the gate judged.

    Raises:
        RefusedError: it is not.
    """
    digest, served = matchup.candidate.model.digest, matchup.candidate.served
    found = list(_addresses(target.section.candidate.model_dump(mode="json")))
    if not found or not all(digest in address for address in found):
        raise RefusedError(
            f"target: expected the candidate's address to hold the digest of {served.name} version {served.version}, "
            f"found {', '.join(found) or 'no address'}; serve it from a content-addressed place such as "
            f".../sha256/{digest}"
        )


def require_shadow(target: Target, config: RolloutPlan) -> None:
    """A plan with a shadow needs a router that copies requests, or probes that the metrics count.

    Raises:
        RolloutError: the target has neither.
    """
    probed = target.probes is not None and target.probes.counted
    if config.shadow_requests and not DRIVERS[target.driver].mirrors and not probed:
        raise RolloutError(
            f"target: {target.driver} copies no requests, so probes do the shadow of this plan: add the section probes "
            "with `counted: true`, or set shadow_requests of the plan to 0"
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


@contextmanager
def probing(
    probes: Probing | None, matchup: Matchup, cluster: Cluster, requests: OperatorRequests, *, seed: int
) -> Iterator[Sender | None]:
    """Sends the target's probes until the end of the block; without that section none.

    Raises:
        RolloutError: they do not reach two arms, or the process was told to stop.
    """
    state = (cluster.store.state or {}).get("state")
    if probes is None or state in TERMINAL:
        yield None
        return
    # A rollout that is about to end has perhaps one arm only; its plan still needs what the sender knows of the rows.
    ending = state in _ENDING
    warm = 0 if ending else WARM
    load = Load(matchup.rows, matchup.attacks, matchup.classes, probes.per_second, clients=1, seed=seed, warm=warm)
    with sending(requests.state, probes, load) as sender:
        sender.wait(requests.stop)
        if ending:
            sender.unpair()
        if probes.counted:
            cluster.driver.count_probes(sender.answered)
        yield sender
