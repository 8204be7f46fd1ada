"""The watchdog: takes candidates out whose driver has not renewed its lease.

It knows no target and no plan, only the annotations that the drivers write, so any replica or a CronJob can run it.
It takes the fence too: a driver that was only asleep is refused when it wakes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from holdfast.errors import RolloutError
from holdfast.kubernetes.api import Kube, MissingError
from holdfast.kubernetes.objects import Json, annotations
from holdfast.serving.rollout.cluster.protocol import ClusterDriver
from holdfast.serving.rollout.cluster.store import EXPIRES, Wall, lapsed
from holdfast.serving.rollout.cluster.table import DRIVERS

EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Expired:
    """A candidate that was taken out."""

    kind: str
    name: str
    at: str
    """The end of its lease."""


def expire(kube: Kube, namespace: str, wall: Wall = time.time) -> list[Expired]:
    """Takes out every candidate of the namespace whose lease has ended; of all drivers, where installed.

    Every object is tried, also when an earlier one fails.

    Raises:
        RolloutError: of the first object that failed.
    """
    done: list[Expired] = []
    failed: list[RolloutError] = []
    for driver in DRIVERS.values():
        with _collecting(failed), suppress(MissingError):  # where that kind is not installed
            for item in driver.leased(kube, namespace):
                with _collecting(failed):
                    done += _take_back(driver, kube, item, wall)
    if failed:
        raise failed[0]
    return done


def watch(kube: Kube, namespace: str, seconds: float, tell: Callable[[str], None], every: float = EVERY_SECONDS) -> int:
    """Runs `expire` every `every` seconds for `seconds`; returns how many candidates it took out.

    Raises:
        RolloutError: the last time failed; `tell` has heard of every failure.
    """
    count, deadline = 0, time.monotonic() + seconds
    while True:
        try:
            for gone in expire(kube, namespace):
                count += 1
                tell(f"{gone.kind} {gone.name}: its driver is gone since {gone.at}; candidate taken out")
        except RolloutError as error:
            tell(str(error))
            if time.monotonic() + every > deadline:
                raise
        if time.monotonic() + every > deadline:
            return count
        time.sleep(every)


@contextmanager
def _collecting(failed: list[RolloutError]) -> Iterator[None]:
    """Keeps an error of the block, so that what follows the block is still done."""
    try:
        yield
    except RolloutError as error:
        failed.append(error)


def _take_back(driver: type[ClusterDriver], kube: Kube, found: Json, wall: Wall) -> list[Expired]:
    name, at = found["metadata"]["name"], annotations(found)[EXPIRES]
    if not lapsed(found, wall()) or not driver.take_back(kube, found, wall):
        return []
    return [Expired(driver.kind, name, at)]
