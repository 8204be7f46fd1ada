"""Judges a candidate from counters: hard limits, then masking, then the sequential tests, then the deadline.

Retries to the stable arm make clients see no failure at all, so a dead candidate looks perfect to whoever asks clients.
Here only the candidate's own counters speak: they must grow, nothing may have been ejected, the process must be alive,
and failures that a retry absorbed are failures. No data is inconclusive, never success.
"""

from dataclasses import dataclass, field, replace
from enum import Enum, auto

from holdfast.serving.rollout.judge.counters import Arm, Snapshot
from holdfast.serving.rollout.judge.eprocess import OneArm, TwoArm

ALPHA_SHARES = {"errors": 0.6, "slow": 0.2, "disagreement": 0.2}
"""How the false alarms allowed are divided over the tests; they add up to 1."""
STREAK = 5
"""So many candidate failures in a row with none at the control end the rollout whatever the tests say."""
SLOW_LOOKS = 4
"""So many looks in a row, mostly slow at the candidate and not at the control, end it too."""
MARGIN = 0.01
"""Most that the candidate's observed failure share may exceed the control's when a step ends."""
SLOW_MARGIN = 0.05
"""Most that the candidate's share of slow answers may exceed the control's when a step ends."""
MIN_PAIRS = 20
"""Probes answered by both arms before the first step may end."""


class Outcome(Enum):
    """What to do next."""

    CONTINUE = auto()
    ENOUGH = auto()
    ROLL_BACK = auto()
    INCONCLUSIVE = auto()


@dataclass(frozen=True)
class Judgement:
    """An outcome with the sentence and the numbers that led to it."""

    outcome: Outcome
    reason: str
    evidence: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """What the rollout's plan allows."""

    alpha: float
    max_disagreement: float
    max_step_seconds: float
    probation: bool = False
    """There is no champion: the control is the same model, so the candidate is held to absolute limits as well."""


@dataclass(frozen=True)
class Suite:
    """The three tests over one stretch of the rollout."""

    errors: TwoArm
    slow: TwoArm
    disagreement: OneArm

    def add(self, before: Snapshot, now: Snapshot) -> "Suite":
        """After a look at what happened between two snapshots."""
        candidate, champion = now.candidate.since(before.candidate), now.champion.since(before.champion)
        return Suite(
            self.errors.add(candidate=_errors(candidate), control=_errors(champion)),
            self.slow.add(candidate=_slow(candidate, at_most=1), control=_slow(champion, at_most=champion.answered)),
            self.disagreement.add(now.disagreements - before.disagreements, now.pairs - before.pairs),
        )

    def anew(self) -> "Suite":
        """Without evidence; what was learnt about the control stays."""
        return Suite(
            TwoArm(failed=self.errors.failed, answered=self.errors.answered),
            TwoArm(failed=self.slow.failed, answered=self.slow.answered),
            OneArm(self.disagreement.limit),
        )

    def values(self) -> dict[str, float]:
        """The e-value of each test."""
        return {"errors": self.errors.value, "slow": self.slow.value, "disagreement": self.disagreement.value}


@dataclass(frozen=True)
class Tests:
    """The tests' state after some looks.

    Each runs twice: over the whole rollout, which finds small effects, and over each state alone, which finds a
    candidate that turns bad after it was good. Half of the stake is on the first, the other half is divided over the
    states; the sum is an e-process again, because a state's share waits at 1 until that state begins.
    """

    whole: Suite
    current: Suite
    banked: dict[str, float]
    """Sum of the final e-values of the states that ended."""
    waiting: int
    """States to come."""
    states: int
    streak: int = 0
    """Candidate failures in a row, as far as counters can tell."""
    slow_looks: int = 0
    """Looks in a row in which most of the candidate's answers were slow and most of the champion's were not."""

    @classmethod
    def fresh(cls, limits: Limits, states: int) -> "Tests":
        """Before the first look of a rollout with so many states that are watched."""
        suite = Suite(TwoArm(), TwoArm(), OneArm(limits.max_disagreement))
        return cls(suite, suite, dict.fromkeys(ALPHA_SHARES, 0.0), states - 1, states)

    def next_state(self) -> "Tests":
        """When the next watched state is entered."""
        banked = {name: self.banked[name] + value for name, value in self.current.values().items()}
        return replace(self, current=self.whole.anew(), banked=banked, waiting=self.waiting - 1)

    def add(self, before: Snapshot, now: Snapshot) -> "Tests":
        """After a look at what happened between two snapshots."""
        candidate, champion = now.candidate.since(before.candidate), now.champion.since(before.champion)
        return replace(
            self,
            whole=self.whole.add(before, now),
            current=self.current.add(before, now),
            streak=_streak(self.streak, candidate, champion),
            slow_looks=_slow_looks(self.slow_looks, candidate, champion),
        )

    def values(self) -> dict[str, float]:
        """The e-value of each test."""
        whole, current = self.whole.values(), self.current.values()
        return {
            name: 0.5 * whole[name] + 0.5 * (self.banked[name] + current[name] + self.waiting) / self.states
            for name in whole
        }


def judge(tests: Tests, *, start: Snapshot, entry: Snapshot, now: Snapshot, limits: Limits, missing: int) -> Judgement:
    """The outcome at one look.

    Args:
        tests: after this look.
        start: when the rollout started.
        entry: when the current state was entered.
        now: this look.
        limits: of the plan.
        missing: how many of the candidate's own answers this state still wants; 0 or less is enough.
    """
    facts = evidence(tests, start, now)
    hard = _hard_limit(tests, start, now) or _proven(tests, limits)
    if hard:
        return Judgement(Outcome.ROLL_BACK, hard, facts)
    if not now.champion_alive:
        return Judgement(Outcome.INCONCLUSIVE, "the champion's server is gone: nothing to compare with", facts)
    wanting = _wanting(start, entry, now, limits=limits, missing=missing)
    if wanting is None:
        return Judgement(
            Outcome.ENOUGH,
            f"the candidate gave {now.candidate.answered - start.candidate.answered} answers, no test objects",
            facts,
        )
    if now.at - entry.at >= limits.max_step_seconds:
        reason = f"no verdict within {limits.max_step_seconds:g} s: {wanting}"
        return Judgement(Outcome.INCONCLUSIVE, reason, facts)
    return Judgement(Outcome.CONTINUE, wanting, facts)


def evidence(tests: Tests, start: Snapshot, now: Snapshot) -> dict[str, float]:
    """The numbers that a judgement rests on."""
    candidate, champion = now.candidate.since(start.candidate), now.champion.since(start.champion)
    return {
        **{f"e_{name}": round(value, 4) for name, value in tests.values().items()},
        "candidate_slow": candidate.slow,
        "champion_slow": champion.slow,
        "pairs": now.pairs - start.pairs,
        "disagreements": now.disagreements - start.disagreements,
        "ejections": now.ejections - start.ejections,
    }


def _hard_limit(tests: Tests, start: Snapshot, now: Snapshot) -> str | None:
    if not now.candidate_alive:
        return "the candidate's server is gone"
    if now.ejections > start.ejections:
        return f"the candidate was ejected after failures in a row ({now.ejections - start.ejections} times)"
    if tests.streak >= STREAK:
        return f"{tests.streak} candidate failures in a row, none at the champion"
    if tests.slow_looks >= SLOW_LOOKS:
        return (
            f"most of the candidate's answers were slow in {tests.slow_looks} looks in a row, the champion's were not"
        )
    return None


def _proven(tests: Tests, limits: Limits) -> str | None:
    most = f"{limits.max_disagreement:.0%}"
    says = {
        "errors": "the candidate fails more often than the champion",
        "slow": "the candidate is slow more often than the champion",
        "disagreement": f"candidate and champion differ in more than {most} of paired answers at this step",
    }
    for name, value in tests.values().items():
        needed = 1 / (limits.alpha * ALPHA_SHARES[name])
        if value >= needed:
            return f"{says[name]} (e-value {value:.3g}, needed {needed:.3g})"
    return None


def _wanting(start: Snapshot, entry: Snapshot, now: Snapshot, *, limits: Limits, missing: int) -> str | None:
    """What the current state still lacks before the next one; None when nothing."""
    if missing > 0:
        return f"{missing} of the candidate's own answers are missing"
    if now.pairs - start.pairs < MIN_PAIRS:
        return f"{MIN_PAIRS - (now.pairs - start.pairs)} paired answers are missing"
    return _disagrees(entry, now, limits) or _over_margin(entry, now, limits)


def _disagrees(entry: Snapshot, now: Snapshot, limits: Limits) -> str | None:
    pairs, disagreements = now.pairs - entry.pairs, now.disagreements - entry.disagreements
    if disagreements > limits.max_disagreement * pairs:
        return f"{disagreements} of {pairs} paired answers disagree"
    return None


def _over_margin(entry: Snapshot, now: Snapshot, limits: Limits) -> str | None:
    """On probation the control is the same model, so it excuses nothing."""
    candidate, champion = now.candidate.since(entry.candidate), now.champion.since(entry.champion)
    excused = Arm() if limits.probation else champion
    failed = MARGIN + excused.failed / max(excused.answered, 1)
    slow = SLOW_MARGIN + excused.slow / max(excused.answered, 1)
    if candidate.failed > failed * candidate.answered:
        return f"the candidate failed {candidate.failed} of {candidate.answered}, more than {failed:.1%}"
    if candidate.slow > slow * candidate.answered:
        return f"{candidate.slow} of {candidate.answered} answers were slow, more than {slow:.1%}"
    return None


def _streak(before: int, candidate: Arm, champion: Arm) -> int:
    if champion.failed or candidate.failed < candidate.answered:
        return 0
    return before + candidate.failed


def _slow_looks(before: int, candidate: Arm, champion: Arm) -> int:
    if candidate.answered == 0:
        return before
    mostly = candidate.slow * 2 > candidate.answered
    return before + 1 if mostly and champion.slow * 2 <= champion.answered else 0


def _errors(arm: Arm) -> tuple[int, int]:
    return arm.failed, arm.answered


def _slow(arm: Arm, at_most: int) -> tuple[int, int]:
    """Slow answers of one look. A stall makes all answers in flight slow at once, and the test wants independent ones:
    the candidate's count as one, which can only make the test more careful.
    """
    return min(arm.slow, at_most, arm.answered), arm.answered
