"""The protocol of a driver on a cluster: all that a rollout, its watchdog and people on call need.

A new driver is one module with one class (on `holdfast.serving.rollout.cluster.fenced`, which has what all of them
share), one row in `holdfast.serving.rollout.cluster.table`, its section of the target file, its rights in
manifests/base/rollout and its page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from holdfast.kubernetes.api import Kube, Resource
from holdfast.kubernetes.objects import Json
from holdfast.serving.rollout.cluster.store import Wall
from holdfast.serving.rollout.cluster.target import Target
from holdfast.serving.rollout.contract.driver import Driver, Provider


@dataclass(frozen=True)
class TrafficShares:
    """Shares of live requests, as the cluster has them now."""

    weights: tuple[tuple[str, str], ...]
    """Name of what serves -> its share, in words."""
    expires_at: str | None
    """End of the lease (RFC 3339); None: nothing has to be renewed."""


class ClusterDriver(Driver, Protocol):
    """Moves the traffic of one object of a cluster, under the fence of one controller.

    A weight above 0, or a mirror, is a lease: `holdfast.dev/expires-at` on the object that carries it, renewed by
    `apply` and enforced by `take_back`, which any watchdog can call without a target file.
    """

    kind: ClassVar[str]
    """Kind of the objects that carry a lease, as Kubernetes writes it."""
    mirrors: ClassVar[bool]
    """Whether live requests can be copied to the candidate. Where they cannot, `apply(0, shadow=True)` only lets probes
    reach it, and the answers to probes are those of the shadow."""

    @classmethod
    def home(cls, target: Target) -> tuple[Resource, str]:
        """Kind and name of the object that holds the rollout's state and fence."""

    @classmethod
    def of(cls, target: Target, kube: Kube, fence: int, provider: Provider | None, wall: Wall) -> Self:
        """The driver of a target's rollout under `fence`; without a provider the target's Prometheus counts.

        From now on no driver with an earlier fence can change anything.

        Raises:
            RolloutError, FencedError: as `apply`.
        """

    @classmethod
    def traffic(cls, target: Target, kube: Kube, home: Json) -> TrafficShares:
        """Shares of live requests now; changes nothing.

        Raises:
            RolloutError: the cluster cannot be asked, or its objects are not valid.
        """

    @classmethod
    def leased(cls, kube: Kube, namespace: str) -> list[Json]:
        """All objects of the namespace that carry a lease.

        Raises:
            MissingError: this kind is not installed.
            RolloutError: the cluster cannot be asked.
        """

    @classmethod
    def take_back(cls, kube: Kube, found: Json, wall: Wall) -> bool:
        """Takes the candidate out whose lease on `found` has ended, and takes the next fence.

        Returns:
            Whether it did; False: the lease was renewed meanwhile, or another watchdog was faster.

        Raises:
            RolloutError: the cluster cannot be changed.
        """

    def prepare(self, seconds: float = 600.0) -> None:
        """Adds the candidate without live traffic, if it is not there, and returns when both arms are ready.

        It begins a rollout: what an earlier one kept for its way back is forgotten.

        Raises:
            RolloutError: they were not ready within `seconds`, or the place is taken.
            FencedError: a newer driver has taken over.
        """

    def count_probes(self, answered: Callable[[], int]) -> None:
        """Sets how many of the candidate's answers that the metrics count were to probes and not to users."""
