"""Several drivers in one virtual time: each has a thread, and only the one whose turn it is runs."""

import heapq
import threading
from dataclasses import dataclass, field

from holdfast.errors import FencedError, RegistryError, RolloutError
from holdfast.serving.rollout.engine.machine import Rollout
from tests.faults.simulator.world import Killed, StuckError, Time, World


@dataclass
class Turns:
    """Who runs next: the one whose sleep ends first."""

    world: World
    waiting: list[tuple[float, int, threading.Semaphore]] = field(default_factory=list)
    numbers: int = 0
    stopped: bool = False

    def turn(self, begins: float) -> threading.Semaphore:
        """A place in the queue: released when it is the turn of who waits until `begins`."""
        mine = threading.Semaphore(0)
        self.numbers += 1
        heapq.heappush(self.waiting, (begins, self.numbers, mine))
        return mine

    def wait(self, until: float) -> None:
        """Hands over until `until`; raises when the world is over."""
        mine = self.turn(until)
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
    threads = [
        threading.Thread(target=_drive, args=(turns, entry, turns.turn(entry.begins), ended), daemon=True)
        for entry in entries
    ]
    for thread in threads:
        thread.start()
    turns.next()
    for thread in threads:
        thread.join(120.0)
        if thread.is_alive():
            world.violations.append("stuck: a driver did not end")
            turns.stopped = True
    return ended


def _drive(turns: Turns, entry: Entry, first: threading.Semaphore, ended: list[Rollout]) -> None:
    first.acquire()
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
