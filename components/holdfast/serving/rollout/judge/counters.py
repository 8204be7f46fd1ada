"""What a driver counts, at one moment. All numbers grow from the start of the rollout; nothing here is a rate."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """Answers of one arm, each request counted once per attempt at this arm's server."""

    answered: int = 0
    """Answers and failures together."""
    failed: int = 0
    """5xx, resets, connect failures and timeouts, also when a retry at the other arm hid them from the client."""
    slow: int = 0
    """Answers slower than the limit."""

    def since(self, earlier: "Arm") -> "Arm":
        """What was added after `earlier`."""
        return Arm(self.answered - earlier.answered, self.failed - earlier.failed, self.slow - earlier.slow)


@dataclass(frozen=True)
class Snapshot:
    """Everything that the analysis sees, at `at` seconds on a clock that only runs forward."""

    at: float = 0.0
    candidate: Arm = Arm()
    champion: Arm = Arm()
    live: int = 0
    """Of the candidate's answers, those to live requests (neither mirrored nor probes)."""
    mirrored: int = 0
    """Of the candidate's answers, those to mirrored requests and probes."""
    pairs: int = 0
    """Probes that both arms answered."""
    disagreements: int = 0
    """Of them, those with two labels."""
    ejections: int = 0
    candidate_alive: bool = True
    champion_alive: bool = True
