"""From a target file to a driver and a store that are ready to be used."""

import time
from dataclasses import dataclass

from holdfast.serving.rollout.drivers.driver import Provider
from holdfast.serving.rollout.drivers.kube import Kube, Resource, from_kubeconfig, in_cluster
from holdfast.serving.rollout.drivers.prometheus import Prometheus
from holdfast.serving.rollout.drivers.seldon_v1 import SeldonV1, deployments_in
from holdfast.serving.rollout.drivers.seldon_v2 import SeldonV2, models_in
from holdfast.serving.rollout.drivers.store import AnnotationStore, Wall
from holdfast.serving.rollout.drivers.target import Target


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


def open_cluster(target: Target, kube: Kube, provider: Provider | None = None, wall: Wall = time.time) -> Cluster:
    """Takes the rollout over: the next fence, then the driver under it; every driver before is refused.

    Raises:
        RolloutError: the object is not there, or cannot be written.
    """
    store = AnnotationStore.open(kube, *place(target), wall)
    counters = provider or Prometheus(target.metrics)
    times = (target.time_to_live_seconds, target.settle_seconds, wall)
    if target.seldon_v1 is not None:
        return Cluster(SeldonV1(kube, target.namespace, target.seldon_v1, counters, store.fence, *times), store)
    assert target.seldon_v2 is not None  # the model says so
    driver = SeldonV2(kube, target.namespace, target.seldon_v2, counters, store.fence, *times)
    driver.take_over()
    return Cluster(driver, store)
