"""Several drivers in one virtual time: each has a thread, and only the one whose turn it is runs."""

import heapq
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.faults.checks import Ended, Wanted, carry, examine
from benchmarks.faults.world import Killed, StuckError, Time, World
from holdfast.errors import FencedError, RegistryError, RolloutError
from holdfast.serving.rollout.engine.machine import Rollout

if TYPE_CHECKING:
    from benchmarks.faults.matrix import Run


def alone(world: World) -> Rollout | None:
    """One driver that nobody follows."""
    from benchmarks.faults.checks import one_driver

    return one_driver(world)


@dataclass
class Turns:
    """Who runs next: the one whose sleep ends first."""

    world: World
    waiting: list[tuple[float, int, threading.Semaphore]] = field(default_factory=list)
    numbers: int = 0
    stopped: bool = False

    def wait(self, until: float) -> None:
        """Hands over until `until`; raises when the world is over."""
        mine = threading.Semaphore(0)
        self.numbers += 1
        heapq.heappush(self.waiting, (until, self.numbers, mine))
        self.next()
        mine.acquire()
        if self.stopped:
            raise Killed
        self.world.advance(max(until - self.world.now, 0.0))

    def next(self) -> None:
        """Wakes the next one, if any."""
        if self.waiting:
            heapq.heappop(self.waiting)[2].release()


@dataclass
class Shared(Time):
    """A clock whose sleeper lets others run; may be stopped (SIGSTOP) once for a while."""

    turns: Turns
    fence: int
    pause_at: float = float("inf")
    pause: float = 0.0

    def sleep(self, seconds: float) -> None:
        """Others run meanwhile."""
        until = self.world.now + seconds
        if until >= self.pause_at:
            until, self.pause_at = until + self.pause, float("inf")
            self.world.dies(self.fence)
        self.turns.wait(until)
        self.world.begins(self.fence)


@dataclass(frozen=True)
class Entry:
    """A driver that begins at a moment and may be stopped for a while."""

    begins: float
    pause_at: float = float("inf")
    pause: float = 0.0


def together(world: World, entries: tuple[Entry, ...]) -> list[Rollout]:
    """Runs drivers side by side; returns the ends of those that came to one."""
    turns, ended = Turns(world), list[Rollout]()
    gates = [threading.Semaphore(0) for _ in entries]
    threads = [
        threading.Thread(target=_drive, args=(turns, entry, ended), daemon=True)
        for entry, _ in zip(entries, gates, strict=True)
    ]
    for thread, entry in zip(threads, entries, strict=True):
        first = threading.Semaphore(0)
        turns.numbers += 1
        heapq.heappush(turns.waiting, (entry.begins, turns.numbers, first))
        thread._holdfast_first = first  # type: ignore[attr-defined]
        thread.start()
    turns.next()
    for thread in threads:
        thread.join(120.0)
        if thread.is_alive():
            world.violations.append("stuck: a driver did not end")
            turns.stopped = True
    return ended


def _drive(turns: Turns, entry: Entry, ended: list[Rollout]) -> None:
    threading.current_thread()._holdfast_first.acquire()  # type: ignore[attr-defined]
    world = turns.world
    fence = 0
    try:
        world.advance(max(entry.begins - world.now, 0.0))
        fence = world.next_fence()
        world.begins(fence)
        clock = Shared(world, turns, fence, entry.pause_at, entry.pause)
        ended.append(world.controller(fence, clock).run())
    except (FencedError, RegistryError, Killed) as error:
        world.moves.append((f"driver {fence}", type(error).__name__))
    except (RolloutError, StuckError) as error:
        world.violations.append(f"driver {fence}: {error!r}")
    finally:
        world.dies(fence)
        turns.next()


def f5(runs: int) -> Iterator["Run"]:
    """Two or three drivers, overlapping; one is stopped and wakes after another has taken over."""
    from benchmarks.faults.matrix import Run

    for seed in range(runs):
        yield Run(f"{2 + seed % 2} drivers", seed, _play)


def _play(seed: int) -> Ended:
    from benchmarks.faults.matrix import PLAN, failing

    chance = np.random.default_rng(seed)
    bad = seed % 3 == 0
    behaves: Callable[[float], object] = failing(0.5)
    world = World(PLAN, seed, outlier=False)
    if bad:
        world.candidate = behaves  # type: ignore[assignment]
    # Leases held by clocks that are 120 s apart only decide who begins when; the fence decides who is heard.
    entries = tuple(
        Entry(
            float(chance.uniform(0.0, 20.0) if number else 0.0),
            float(chance.uniform(0.5, 20.0)) if chance.random() < 0.7 else float("inf"),
            float(chance.choice([0.5, 5.0, 40.0])),
        )
        for number in range(2 + seed % 2)
    )
    ended = together(world, entries)
    last = ended[-1] if ended else carry(world)
    if len({str(one.state) for one in ended}) > 1:
        world.violations.append(f"drivers came to different ends: {[str(one.state) for one in ended]}")
    return examine(world, last, Wanted())
