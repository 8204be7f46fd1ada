"""Where a rollout is carried out, as the one sequence in `step` needs it: on this machine, or on a cluster."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from holdfast.serving.rollout.contract.driver import Driver, Store
from holdfast.serving.rollout.engine.controller import Pace, Watcher
from holdfast.serving.rollout.engine.requests import OperatorRequests, Stop
from holdfast.serving.rollout.matchup import Matchup
from holdfast.serving.rollout.reporting.timeline import Sent
from holdfast.serving.rollout.traffic.sender import Sender
from holdfast.workload.schema import RolloutPlan


@dataclass
class Traffic:
    """What a rollout watches; the last two are known when it is over."""

    driver: Driver
    counts: Sent
    """Requests of clients."""
    sender: Sender | None
    """Traffic or probes of our own; None: there is none, and predictions are not compared."""
    watchers: tuple[Watcher, ...] = ()
    """Called at every observation before all others."""
    lag: Callable[[], float] | None = None
    """As `Controller.traffic_lag`."""
    tail: str = ""
    """The end of the candidate's log."""
    fault_at: float | None = None
    """When a planted fault set in, on the machine's monotonic clock."""


@dataclass(frozen=True)
class Stage:
    """A place that is open for one rollout: its state can be written, and no other driver can."""

    store: Store
    requests: OperatorRequests
    began: float
    """Unix seconds."""
    traffic: Callable[[RolloutPlan, int], AbstractContextManager[Traffic]]
    """By plan and seed: servers, driver and traffic while the block runs."""
    pace: Pace = Pace()
    put_aside: Callable[[], None] = lambda: None
    """Keeps what a rollout that was told to stop leaves, so that the next one begins from its start."""
    not_promoted: Callable[[], None] = lambda: None
    """Called when the record of an end without a promotion is written."""


OpenStage = Callable[[Matchup, Path, Stop], AbstractContextManager[Stage]]
"""Opens a place for a matchup, given the rollout's folder and the signal to stop."""


@dataclass(frozen=True)
class Place:
    """Where a rollout can be carried out."""

    open: OpenStage
    require: Callable[[RolloutPlan], None] = lambda plan: None
    """Raises RolloutError for a plan that cannot be carried out there."""
    again: bool = False
    """Whether what the registry has as champion already is rolled out there all the same."""
