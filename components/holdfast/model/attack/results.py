"""The entries of a report, from what the attacks left."""

from typing import TYPE_CHECKING

from holdfast.artifacts.documents import AttackResult, Count, ThreatModel

if TYPE_CHECKING:
    from torch import Tensor

    from holdfast.model.attack.suite import Measured


def attack_results(measured: "Measured", threat: ThreatModel) -> tuple[AttackResult, ...]:
    """One entry for each attack of the suite, in order."""
    return tuple(
        AttackResult(
            name=outcome.plan.name,
            library=outcome.plan.library,
            threat=threat,
            steps=outcome.plan.steps,
            restarts=outcome.plan.restarts,
            survived=count(outcome.survived),
            cumulative=outcome.cumulative,
        )
        for outcome in measured.outcomes
    )


def count(flags: "Tensor") -> Count:
    """How many of the flags bool[N] are set."""
    return Count(k=int(flags.sum()), n=len(flags))
