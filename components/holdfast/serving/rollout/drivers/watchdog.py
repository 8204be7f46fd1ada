"""The dead-man's switch: takes candidates out whose driver has not renewed them.

It knows no target and no plan, only the annotations that the drivers write, so any replica or a CronJob can run it.
It takes the fence too: a driver that was only asleep is refused when it wakes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdfast.errors import RolloutError
from holdfast.serving.rollout.drivers.kube import (
    ConflictError,
    Json,
    Kube,
    MissingError,
    Operation,
    annotate,
    annotations,
    edit,
)
from holdfast.serving.rollout.drivers.seldon_v1 import ARMS, CHAMPION, champion_of, deployments_in, removal
from holdfast.serving.rollout.drivers.seldon_v2 import experiments_in, models_in, served_as
from holdfast.serving.rollout.drivers.split import MIRRORED
from holdfast.serving.rollout.drivers.store import (
    EXPIRES,
    FENCE,
    HISTORY,
    HOLDER,
    Wall,
    entry,
    fence_of,
    longer,
    moment,
)

SKEW_SECONDS = 5.0
"""So far may the clocks of a driver and of the watchdog differ."""
EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Expired:
    """A candidate that was taken out."""

    kind: str
    name: str
    at: str
    """When its driver should have renewed it."""


def expire(kube: Kube, namespace: str, wall: Wall = time.time) -> list[Expired]:
    """Takes out every candidate of the namespace whose expiry has passed; both Seldon versions, where installed.

    Every object is tried, also when an earlier one fails.

    Raises:
        RolloutError: of the first object that failed.
    """
    done: list[Expired] = []
    failed: list[RolloutError] = []
    for look in (_deployments, _experiments):
        try:
            found = look(kube, namespace)
        except MissingError:  # that version of Seldon is not installed
            continue
        except RolloutError as error:
            failed.append(error)
            continue
        for item, take_out in found:
            try:
                done += take_out(item, wall)
            except RolloutError as error:
                failed.append(error)
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


TakeOut = Callable[[Json, Wall], list[Expired]]


def _deployments(kube: Kube, namespace: str) -> list[tuple[Json, TakeOut]]:
    resource = deployments_in(namespace)

    def take_out(item: Json, wall: Wall) -> list[Expired]:
        name, at = item["metadata"]["name"], annotations(item)[EXPIRES]
        if not _late(item, wall()):
            return []
        gone: list[str] = []

        def change(found: Json) -> Sequence[Operation]:
            if EXPIRES not in annotations(found) or not _late(found, wall()):
                return ()
            gone.append(name)
            stable, _, candidate = annotations(found).get(ARMS, "").partition("/")
            return [*removal(found, stable, candidate, champion_of(found)), *annotate(found, _notes(found, at, wall()))]

        edit(kube, resource, name, change)
        return [Expired("SeldonDeployment", name, at)] if gone else []

    return [(item, take_out) for item in kube.list(resource) if EXPIRES in annotations(item)]


def _experiments(kube: Kube, namespace: str) -> list[tuple[Json, TakeOut]]:
    """The Experiment goes first, then the fence on its stable Model: traffic counts more than order."""
    resource = experiments_in(namespace)

    def take_out(item: Json, wall: Wall) -> list[Expired]:
        name, at = item["metadata"]["name"], annotations(item)[EXPIRES]
        if not _late(item, wall()):
            return []
        gone = [] if item["metadata"].get("deletionTimestamp") else [Expired("Experiment", name, at)]
        try:
            if gone:
                kube.delete(resource, name, only=item)
        except MissingError:
            pass
        except ConflictError:  # renewed meanwhile, or changed: the next look tells
            return []
        fence = fence_of(item) + 1

        def change(found: Json) -> Sequence[Operation]:
            if fence_of(found) >= fence:
                return ()
            champion = champion_of(found)
            back = served_as(found, champion) if champion else []
            return [*back, *annotate(found, _notes(found, at, wall()))]

        edit(kube, models_in(namespace), str(item["spec"]["default"]), change)
        return gone

    return [(item, take_out) for item in kube.list(resource) if EXPIRES in annotations(item)]


def _late(found: Json, now: float) -> bool:
    """An expiry that has no meaning counts as passed."""
    at = moment(annotations(found)[EXPIRES])
    return at is None or now > at + SKEW_SECONDS


def _notes(found: Json, at: str, now: float) -> dict[str, str | None]:
    fence = fence_of(found) + 1
    line = entry("expired", fence, now, {"expires_at": at, "reason": "its driver is gone; the watchdog took it out"})
    gone: dict[str, str | None] = dict.fromkeys((EXPIRES, MIRRORED, ARMS, HOLDER, CHAMPION))
    return {FENCE: str(fence), HISTORY: longer(found, line), **gone}
