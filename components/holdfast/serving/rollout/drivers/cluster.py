"""From a target file to a driver and a store that are ready to be used."""

import hashlib
import time
from dataclasses import dataclass

from holdfast.serving.rollout.drivers.driver import Provider
from holdfast.serving.rollout.drivers.kube import Kube, Resource, from_kubeconfig, in_cluster
from holdfast.serving.rollout.drivers.prometheus import Prometheus
from holdfast.serving.rollout.drivers.seldon_v1 import SeldonV1, deployments_in
from holdfast.serving.rollout.drivers.seldon_v2 import SeldonV2, models_in
from holdfast.serving.rollout.drivers.store import AnnotationStore, Subject, Wall, compact
from holdfast.serving.rollout.drivers.target import Target
from holdfast.serving.rollout.judge.machine import State


@dataclass(frozen=True)
class Cluster:
    """What a controller needs."""

    driver: SeldonV1 | SeldonV2
    store: AnnotationStore


def reach(target: Target) -> Kube:
    """The API server that the target names.

    Raises:
        RolloutError, WorkloadError: there is no way to it.
    """
    if target.kubeconfig is None:
        return Kube(in_cluster())
    return Kube(from_kubeconfig(target.kubeconfig.expanduser(), target.context))


def place(target: Target) -> tuple[Resource, str]:
    """The object that holds the state: the SeldonDeployment, or the stable Model."""
    if target.seldon_v1 is not None:
        return deployments_in(target.namespace), target.seldon_v1.deployment
    assert target.seldon_v2 is not None  # the model says so
    return models_in(target.namespace), target.seldon_v2.stable


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
    store = AnnotationStore.open(kube, *place(target), Subject(candidate_digest(target), decision), wall)
    counters = provider or Prometheus(target.metrics)
    times = (target.time_to_live_seconds, target.settle_seconds, wall)
    if target.seldon_v1 is not None:
        return Cluster(SeldonV1(kube, target.namespace, target.seldon_v1, counters, store.fence, *times), store)
    assert target.seldon_v2 is not None  # the model says so
    driver = SeldonV2(kube, target.namespace, target.seldon_v2, counters, store.fence, *times)
    driver.take_over()
    return Cluster(driver, store)


def prepare(cluster: Cluster, seconds: float = 600.0) -> None:
    """Puts the candidate there and waits for it, unless its rollout is under way or has ended.

    Raises:
        RolloutError, FencedError: as the driver's `prepare`.
    """
    state = cluster.store.state
    if state is None or state.get("state") == State.PENDING:
        cluster.driver.prepare(seconds)


def candidate_digest(target: Target) -> str:
    """SHA-256 of what the target says about its candidate; the model's own digest is part of its URI."""
    section = target.seldon_v1 or target.seldon_v2
    assert section is not None  # the model says so
    return hashlib.sha256(compact(section.candidate.model_dump(mode="json")).encode()).hexdigest()
