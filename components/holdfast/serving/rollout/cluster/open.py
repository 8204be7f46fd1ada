"""Opens a rollout on a cluster: from a target file to a driver and a store."""

import hashlib
import time
from dataclasses import dataclass

from holdfast.kubernetes.access import in_cluster
from holdfast.kubernetes.api import Kube
from holdfast.kubernetes.kubeconfig import from_kubeconfig
from holdfast.serving.rollout.cluster.protocol import ClusterDriver
from holdfast.serving.rollout.cluster.store import AnnotationStore, Subject, Wall, compact
from holdfast.serving.rollout.cluster.table import DRIVERS
from holdfast.serving.rollout.cluster.target import Target
from holdfast.serving.rollout.contract.driver import Provider
from holdfast.serving.rollout.engine.machine import State


@dataclass(frozen=True)
class Cluster:
    """Driver and store, which a controller needs."""

    driver: ClusterDriver
    store: AnnotationStore


def reach(target: Target) -> Kube:
    """The API server that the target names.

    Raises:
        RolloutError, WorkloadError: there is no way to it.
    """
    if target.kubeconfig is None:
        return Kube(in_cluster())
    return Kube(from_kubeconfig(target.kubeconfig, target.context))


def open_cluster(
    target: Target, kube: Kube, decision: str, provider: Provider | None = None, wall: Wall = time.time
) -> Cluster:
    """Takes the rollout of the target's candidate over: the next fence, then the driver under it.

    Args:
        target: where, and what.
        kube: its API server (`reach`).
        decision: the gate's, by its digest; after a rollback only another one lets the same candidate in.
        provider: of counters; left out: the target's Prometheus.
        wall: the clock that the watchdog's is compared with.

    Raises:
        RolloutError: the object is not there, or cannot be written; another rollout is under way there; or this one
            was rolled back.
    """
    kind = DRIVERS[target.driver]
    store = AnnotationStore.open(kube, *kind.home(target), Subject(candidate_digest(target), decision), wall)
    return Cluster(kind.of(target, kube, store.fence, provider, wall), store)


def prepare(cluster: Cluster, seconds: float = 600.0) -> None:
    """Puts the candidate there and waits for it, unless its rollout is under way or has ended.

    Raises:
        RolloutError, FencedError: as the driver's `prepare`.
    """
    state = cluster.store.state
    if state is None or state.get("state") == State.PENDING:
        cluster.driver.prepare(seconds)


def candidate_digest(target: Target) -> str:
    """SHA-256 of the target's section `candidate`; the model's own digest is part of its URI."""
    return hashlib.sha256(compact(target.section.candidate.model_dump(mode="json")).encode()).hexdigest()
