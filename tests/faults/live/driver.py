"""`python -m tests.faults.live.driver STATE SOCKET PLAN`: the real controller as a process that may be killed.

It keeps its journal in STATE, moves the deployment at SOCKET, and leaves the moments of its acts in STATE/acts.jsonl.
While STATE/registry-down exists, the registry cannot be told of a promotion; STATE/registry holds what it was told.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import HoldfastError, RegistryError
from holdfast.serving.rollout.contract.counters import Observation
from holdfast.serving.rollout.contract.driver import StoredState
from holdfast.serving.rollout.engine.controller import Controller
from holdfast.serving.rollout.engine.journal import Journal, open_journal
from holdfast.serving.rollout.engine.machine import Rollout, State
from holdfast.serving.rollout.engine.plan import plan_of
from holdfast.serving.rollout.engine.requests import OperatorRequests, told_to_stop
from holdfast.serving.rollout.local.driver import LocalDriver
from holdfast.serving.rollout.traffic.tally import read_tally
from holdfast.workload.schema import RolloutPlan


@dataclass
class Acts:
    """Writes down when what was decided and in effect; hears as a watcher, and writes through to the store."""

    journal: Journal
    path: Path

    @property
    def fence(self) -> int:
        """The journal's."""
        return self.journal.fence

    @property
    def state(self) -> StoredState | None:
        """The journal's."""
        return self.journal.state

    def write(self, kind: str, state: StoredState, /, **facts: object) -> None:
        """A decision to go back is made when its intent is about to be written."""
        if kind == "intent" and state["state"] == State.ROLLING_BACK:
            self.note("decided", str(facts["reason"]))
        self.journal.write(kind, state, **facts)

    def observed(self, rollout: Rollout, seen: Observation) -> None:
        """Nothing to note."""

    def moved(self, before: Rollout, after: Rollout) -> None:
        """A transition is in effect."""
        self.note("zero" if after.state is State.ROLLING_BACK else "moved", f"{before.name} -> {after.name}")

    def paged(self, rollout: Rollout, reason: str) -> None:
        """A person is needed."""
        self.note("paged", reason)

    def note(self, what: str, about: str) -> None:
        """One line; a full disk must not be what ends this driver."""
        line = json.dumps({"fence": self.fence, "at": time.monotonic(), "what": what, "about": about})
        try:
            with self.path.open("a") as stream:
                stream.write(line + "\n")
        except OSError:
            sys.stderr.write(line + "\n")


def drive(state: Path, socket: Path, config: RolloutPlan) -> Rollout:
    """From the journal's last state to the end."""
    plan = plan_of(config, classes=10, attacks=None, probation=False)
    with told_to_stop() as stop, open_journal(state / "journal.jsonl") as journal:
        acts = Acts(journal, state / "acts.jsonl")
        acts.note("began", "")
        return Controller(
            plan,
            LocalDriver(socket, journal.fence),
            acts,
            stop,
            acts,
            requests=OperatorRequests(state, stop),
            probes=lambda: read_tally(state / "tally.json").probes,
            mirror=lambda: _tell_registry(state),
        ).run()


def _tell_registry(state: Path) -> None:
    """As the real one: the second time it changes nothing."""
    if (state / "registry-down").exists():
        raise RegistryError("expected the registry, found connection refused")
    kept = state / "registry"
    if not kept.exists():
        with kept.open("a") as stream:
            stream.write("champion: candidate\n")


def main() -> int:
    """Prints the end as JSON; exit code 1 with one line when it could not go on."""
    state, socket = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        ended = drive(state, socket, RolloutPlan.model_validate_json(sys.argv[3]))
    except HoldfastError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    sys.stdout.write(json.dumps({"state": ended.state, "reason": ended.judgement.reason, "peak_kib": peak}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
