"""The traffic of a rollout as a child process (`holdfast replay`), and what it counted over all drivers; light."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.artifacts.documents import Count
from holdfast.artifacts.folder import replace_file
from holdfast.errors import RolloutError
from holdfast.processes import Process, reap
from holdfast.serving.rollout.contract.arms import Arms
from holdfast.serving.rollout.contract.counters import Observation, Probes
from holdfast.serving.rollout.engine.machine import Rollout, State
from holdfast.serving.rollout.engine.requests import Stop
from holdfast.serving.rollout.traffic.tally import Tally, read_tally
from holdfast.warm import children

TALLY, BEFORE, LOG, ARMS = "tally.json", "tally-before.jsonl", "replay.log", "arms.json"
START_SECONDS = 240.0
STOP_SECONDS = 15.0
FRESH_SECONDS = 0.3
"""Counts are written three times in so many seconds; older ones mean that the replay was kept waiting."""
STALE_SECONDS = 2.0
"""A replay that wrote no counts for so long counts nothing any more."""
WARM = 20


@dataclass(frozen=True)
class Load:
    """What to send."""

    rows: Path
    attacks: Path | None
    classes: int
    rate: float
    """Client requests per second; pairs, where only probes are sent."""
    clients: int
    seed: int
    probes: Path | None = None
    """The unix socket that probes use, where there is one."""
    warm: int = WARM
    """Rows that both arms answer before anything is counted; with an address for either, they must be two."""


@dataclass
class Sender:
    """Traffic that runs."""

    state: Path
    process: Process
    before: tuple[int, int]
    """Client requests sent and failed under drivers before this one."""
    last: Tally | None = None
    unpaired: bool = False

    @property
    def sent(self) -> int:
        """Client requests that ended, well or not."""
        return self.before[0] + self._known().sent

    @property
    def failed(self) -> int:
        """Requests of them without a whole answer."""
        return self.before[1] + self._known().failed

    def probes(self) -> Probes:
        """What its probes found until now; they begin from zero with every driver.

        Raises:
            RolloutError: it counts nothing (any more), or another than the arm asked answers.
        """
        self.refresh()
        known = self._known()
        if time.monotonic() - known.at > STALE_SECONDS:
            raise RolloutError(f"{self.state / TALLY}: expected fresh counts, found some of {STALE_SECONDS:g} s ago")
        if known.strays and not self.unpaired:
            raise RolloutError(f"probes: expected answers of the arm asked, found {known.strays} of another model")
        return known.probes

    def lag(self) -> float:
        """Longest, in seconds, that the machine kept the traffic waiting of late, as of the last counts read."""
        known = self._known()
        return max(known.lag, time.monotonic() - known.at - FRESH_SECONDS)

    def answered(self) -> int:
        """How many probes the candidate has answered until now, well or not.

        Raises:
            RolloutError: there are no counts.
        """
        self.refresh()
        found = self._known().probes
        return found.pairs + found.broken + found.attacks

    def unpair(self) -> None:
        """No probes any more: without the candidate's route they would reach the champion twice."""
        self.unpaired = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)

    def offline(self) -> Count | None:
        """How many of the adversarial rows fooled the judged model; None when none are sent."""
        known = self._known()
        return Count(k=known.attack_rows_fooling, n=known.attack_rows) if known.attack_rows else None

    def refresh(self) -> None:
        """Reads the counts again."""
        self.last = read_tally(self.state / TALLY)

    def wait(self, clock: Stop) -> None:
        """Returns when both arms are warm and the first counts are there.

        Raises:
            RolloutError: it ended, or did not begin in time, or this process was told to stop.
        """
        deadline = clock.now() + START_SECONDS
        while not (self.state / TALLY).exists():
            clock.check("replay")
            if self.process.poll() is not None or clock.now() > deadline:
                said = (self.state / LOG).read_text(errors="replace").strip()[-500:]
                raise RolloutError(f"replay: did not begin within {START_SECONDS:g} s: {said}")
            clock.sleep(0.02)
        self.refresh()

    def _known(self) -> Tally:
        return self.last or Tally()


@dataclass(frozen=True)
class Unpairing:
    """Implements `holdfast.serving.rollout.engine.controller.Watcher`: a rollback ends the probes."""

    sender: Sender
    states: frozenset[State] = frozenset({State.ROLLING_BACK})
    """Where it ends them: in these, an arm is taken away or becomes the other."""

    def observed(self, rollout: Rollout, seen: Observation) -> None:
        """Nothing."""

    def moved(self, before: Rollout, after: Rollout) -> None:
        """Without the candidate's route both probes of a pair would reach the champion, and agree."""
        if after.state in self.states:
            self.sender.unpair()

    def paged(self, rollout: Rollout, reason: str) -> None:
        """Nothing."""


@contextmanager
def sending(state: Path, where: str | Arms, load: Load) -> Iterator[Sender]:
    """Sends until the end of the block; requests under way are waited for and counted.

    Args:
        state: folder of the counts.
        where: the address of clients and probes, or of either arm: then only probes are sent.
        load: what to send.
    """
    before = _put_by(state)
    with (state / LOG).open("ab") as log:
        process = children.start("holdfast", _words(state, where, load), out=log.fileno())
    try:
        yield Sender(state, process, before)
    finally:
        process.terminate()
        reap(process, STOP_SECONDS)


def _words(state: Path, where: str | Arms, load: Load) -> list[str]:
    if isinstance(where, str):
        to = {"url": where}
    else:
        replace_file(state / ARMS, where.model_dump_json(include={"champion", "candidate"}).encode())
        to = {"arms": str(state / ARMS)}
    given = {
        **to,
        "rows": load.rows,
        "classes": load.classes,
        "rate": load.rate,
        "clients": load.clients,
        "seed": load.seed,
        "tally": state / TALLY,
        "warm": load.warm,
        **({"attacks": load.attacks} if load.attacks else {}),
        **({"probes": load.probes} if load.probes else {}),
    }
    return ["replay", *(f"--{name}={value}" for name, value in given.items())]


def _put_by(state: Path) -> tuple[int, int]:
    """Adds the tally of the driver before this one to those before it; returns (sent, failed) of all of them."""
    kept = state / BEFORE
    lines = kept.read_text().splitlines() if kept.exists() else []
    if (state / TALLY).exists():
        found = read_tally(state / TALLY)
        lines.append(f"{found.sent} {found.failed}")
        replace_file(kept, "".join(f"{line}\n" for line in lines).encode())
        (state / TALLY).unlink()
    pairs = [tuple(int(number) for number in line.split()) for line in lines]
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
