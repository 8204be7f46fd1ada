"""What was seen over a stretch of a rollout: the growth of the counters, look by look.

A look after a gap, or one whose counters went back, adds nothing: what happened unseen is missing data.
"""

from dataclasses import dataclass

from holdfast.serving.rollout.contract.counters import Arm, Probes, Snapshot


@dataclass(frozen=True)
class Counts:
    """Sums over looks."""

    seconds: float = 0.0
    candidate: Arm = Arm()
    champion: Arm = Arm()
    live: int = 0
    mirrored: int = 0
    routed: int = 0
    chosen: int = 0
    ejections: int = 0
    probes: Probes = Probes()
    lag: float = 0.0
    """Longest, in seconds, that this machine kept the controller or the traffic waiting."""

    def plus(self, more: "Counts") -> "Counts":
        """Both together."""
        return Counts(
            self.seconds + more.seconds,
            self.candidate.plus(more.candidate),
            self.champion.plus(more.champion),
            self.live + more.live,
            self.mirrored + more.mirrored,
            self.routed + more.routed,
            self.chosen + more.chosen,
            self.ejections + more.ejections,
            self.probes.plus(more.probes),
            max(self.lag, more.lag),
        )


def between(before: Snapshot, now: Snapshot) -> Counts:
    """What one look adds."""
    return Counts(
        max(now.at - before.at, 0.0),
        now.candidate.since(before.candidate),
        now.champion.since(before.champion),
        now.live - before.live,
        now.mirrored - before.mirrored,
        now.routed - before.routed,
        now.chosen - before.chosen,
        now.ejections - before.ejections,
        now.probes.since(before.probes),
        now.lag,
    )
