"""What is counted, at one moment. All numbers grow from the start of the counting; nothing here is a rate."""

from dataclasses import dataclass
from itertools import zip_longest

EDGES_MS: tuple[float, ...] = tuple(round(1.25**k, 3) for k in range(-3, 42))
"""Upper edges of the latency buckets where we choose them: 0.5 ms to 9.4 s, each a quarter above the last."""

EQUAL_WEIGHT = 50
"""Up to this weight, in percent, the champion carries at least as much traffic as the candidate."""


@dataclass(frozen=True)
class Arm:
    """Answers of one arm, each request counted once per attempt at this arm's server."""

    answered: int = 0
    """Answers and failures together."""
    failed: int = 0
    """5xx, resets, connect failures and timeouts, also when a retry at the other arm hid them from the client."""
    timed: int = 0
    """Answers whose time was taken."""
    within: tuple[int, ...] = ()
    """Of them, how many came within each of the snapshot's edges."""
    timed_out: int = 0
    """Of the failures, attempts that had no answer in time: a busy machine does that too, so they are slow answers."""
    refused: int = 0
    """Of the failures, connections that were not made; 0 where unknown."""

    @property
    def wrong(self) -> int:
        """Failures that no load causes: 5xx, resets, refused connections."""
        return max(self.failed - self.timed_out, 0)

    @property
    def unanswered(self) -> int:
        """Failures in which the server said nothing."""
        return self.timed_out + self.refused

    def since(self, earlier: "Arm") -> "Arm":
        """What was added after `earlier`."""
        return Arm(
            self.answered - earlier.answered,
            self.failed - earlier.failed,
            self.timed - earlier.timed,
            minus(self.within, earlier.within),
            self.timed_out - earlier.timed_out,
            self.refused - earlier.refused,
        )

    def plus(self, more: "Arm") -> "Arm":
        """Both together."""
        return Arm(
            self.answered + more.answered,
            self.failed + more.failed,
            self.timed + more.timed,
            plus(self.within, more.within),
            self.timed_out + more.timed_out,
            self.refused + more.refused,
        )

    def at_least(self, earlier: "Arm") -> "Arm":
        """Each counter, or what it was before where it seems to have fallen."""
        within = tuple(max(pair) for pair in zip_longest(self.within, earlier.within, fillvalue=0))
        return Arm(
            max(self.answered, earlier.answered),
            max(self.failed, earlier.failed),
            max(self.timed, earlier.timed),
            within,
            max(self.timed_out, earlier.timed_out),
            max(self.refused, earlier.refused),
        )

    def over(self, edge: int) -> int:
        """Answers that took longer than edge number `edge`."""
        return self.timed - self.within[edge] if self.within else 0


@dataclass(frozen=True)
class Probes:
    """What probes found: the same row was sent to both arms, beside the clients' requests."""

    pairs: int = 0
    """Rows that both arms answered."""
    disagreements: int = 0
    """Of them, those with two labels."""
    gained: tuple[int, ...] = ()
    """Per class: pairs in which only the candidate said it."""
    lost: tuple[int, ...] = ()
    """Per class: pairs in which only the champion said it."""
    broken: int = 0
    """Rows that the champion answered and the candidate did not, or not in the promised shape, or with NaN."""
    attacks: int = 0
    """Adversarial rows that the candidate answered."""
    fooled: int = 0
    """Of them, those with a wrong label."""

    def since(self, earlier: "Probes") -> "Probes":
        """What was added after `earlier`."""
        return Probes(
            self.pairs - earlier.pairs,
            self.disagreements - earlier.disagreements,
            minus(self.gained, earlier.gained),
            minus(self.lost, earlier.lost),
            self.broken - earlier.broken,
            self.attacks - earlier.attacks,
            self.fooled - earlier.fooled,
        )

    def plus(self, more: "Probes") -> "Probes":
        """Both together."""
        return Probes(
            self.pairs + more.pairs,
            self.disagreements + more.disagreements,
            plus(self.gained, more.gained),
            plus(self.lost, more.lost),
            self.broken + more.broken,
            self.attacks + more.attacks,
            self.fooled + more.fooled,
        )


@dataclass(frozen=True)
class Snapshot:
    """Everything that the analysis sees, at `at` seconds on a clock that only runs forward."""

    at: float = 0.0
    edges_ms: tuple[float, ...] = ()
    """Upper edges of the latency buckets of both arms."""
    candidate: Arm = Arm()
    champion: Arm = Arm()
    live: int = 0
    """Of the candidate's answers, those to live requests (neither mirrored nor probes)."""
    mirrored: int = 0
    """Of the candidate's answers, those to mirrored requests and probes."""
    routed: int = 0
    """Live requests that the router sent to either arm by weight."""
    chosen: int = 0
    """Of `live`, those that a client sent to the candidate itself, or whose key kept them there; not in `routed`."""
    ejections: int = 0
    probes: Probes = Probes()
    weight: int | None = None
    """What the router itself says that the candidate's weight is; None when it cannot say."""
    candidate_alive: bool = True
    champion_alive: bool = True
    balanced: bool = False
    """Whether the champion gets copies of live traffic, so that it is as busy as a candidate with more of it."""
    lag: float = 0.0
    """Longest, in seconds, that this machine kept the controller or the traffic waiting since the last look."""
    candidate_exit: int | None = None
    """How its process ended, where that is known: the exit code, or minus the number of the signal."""


@dataclass(frozen=True)
class Blind:
    """A look that saw nothing: no counters, stale ones, or some that cannot be true. Never a success."""

    at: float
    reason: str


def went_back(earlier: Snapshot, now: Snapshot) -> str | None:
    """The first counter that is lower than before, as a counter is after its server was started anew."""
    for role in ("candidate", "champion"):
        before, after = getattr(earlier, role), getattr(now, role)
        for name in ("answered", "failed", "timed", "timed_out"):
            if getattr(after, name) < getattr(before, name):
                return f"{role}.{name}"
    return next(
        (
            name
            for name in ("live", "mirrored", "routed", "chosen", "ejections")
            if getattr(now, name) < getattr(earlier, name)
        ),
        None,
    )


def plus(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """Sums of counts; the shorter one is filled up with 0."""
    size = max(len(left), len(right))
    return tuple(a + b for a, b in zip(_filled(left, size), _filled(right, size), strict=True))


def minus(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """Differences of counts; the shorter one is filled up with 0."""
    return plus(left, tuple(-value for value in right))


def _filled(values: tuple[int, ...], size: int) -> tuple[int, ...]:
    return values + (0,) * (size - len(values))
