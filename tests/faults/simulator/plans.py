"""What runs of the matrix are made of: plans, candidates, and the run as a function of its seed."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from holdfast.serving.rollout.engine.analysis import Limits
from holdfast.serving.rollout.engine.controller import Pace
from holdfast.serving.rollout.engine.machine import Plan, PlanStep, State
from tests.faults.simulator.checks import Ended, Wanted, carry, examine
from tests.faults.simulator.world import Behaves, Behaviour, World

LIMITS = Limits(classes=10)
PLAN = Plan(
    LIMITS,
    steps=(PlanStep(5, 50), PlanStep(25, 100), PlanStep(50, 100), PlanStep(100, 150)),
    shadow=PlanStep(0, 200),
)
LONG = replace(PLAN, steps=(PlanStep(10, 1000), PlanStep(50, 4000), PlanStep(100, 5000)))
OUT = frozenset({State.ROLLED_BACK, State.INCONCLUSIVE})
BLAMED = frozenset({State.ROLLED_BACK})
UNDECIDED = frozenset({State.INCONCLUSIVE})
CLUSTER = Pace(interval=1.0, checkpoint=5.0, gap=10.0, promoting=120.0, aftermath=1.0)
"""A cluster is looked at less often."""


@dataclass(frozen=True)
class Run:
    """One run of one fault."""

    about: str
    seed: int
    play: Callable[[int], Ended]

    def __call__(self) -> Ended:
        """Does it."""
        return self.play(self.seed)


def played(world: World, wanted: Wanted, gap: float = 2.0) -> Ended:
    """Carries the rollout out and examines it."""
    return examine(world, carry(world, gap), wanted)


# --- candidates -------------------------------------------------------------------------------------------------------


def healthy(_: float) -> Behaviour:
    """As good as the champion."""
    return Behaviour()


def failing(share: float, after: float = 1.0) -> Behaves:
    """Answers with errors from so many seconds of live traffic on."""
    return lambda t: Behaviour(errors=share if t >= after else 0.0)


def bad_candidates() -> dict[str, Behaves]:
    """Those of F7."""
    return {
        "crash loop": lambda t: Behaviour(alive=t < 1 or t % 4 > 2),
        "only errors": failing(1.0),
        "5 % errors": failing(0.05, -2.0),
        "ten times slower": lambda t: Behaviour(median_ms=80.0 if t >= 0 else 8.0),
        "wrong shape": lambda t: Behaviour(broken=1.0 if t >= 1 else 0.0),
        "NaN": failing(1.0, 2.0),
        "flapping": lambda t: Behaviour(errors=0.1 if t % 2.5 < 0.25 else 0.0),
        "leak": lambda t: Behaviour(median_ms=8.0 * (1 + max(t, 0.0)), alive=t < 9),
        "dies at the first live request": lambda t: Behaviour(alive=t < 0),
    }
