"""Judges a candidate from counters: hard limits, then masking, then the sequential tests, then the deadline.

Retries to the stable arm make clients see no failure at all, so a dead candidate looks perfect to their clients.
Here only the candidate's own counters speak: they must grow as its weight demands, nothing may have been ejected, the
process must be alive, and failures that a retry absorbed are failures. No data is inconclusive, never success.
"""

import math
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from holdfast.artifacts.cause import Cause, of_exit
from holdfast.serving.rollout.contract.counters import Arm, Counts, Reading
from holdfast.serving.rollout.engine.latency import PairedLatency
from holdfast.statistics import newcombe_upper
from holdfast.statistics.drift import PredictionDrift
from holdfast.statistics.eprocess import OneArm, TwoArm

ALPHA_SHARES = {
    "errors": 0.6,
    "service": 0.05,
    "broken": 0.05,
    "slow": 0.15,
    "disagreement": 0.05,
    "drift": 0.05,
    "attack": 0.05,
}
"""How the false alarms allowed are divided over the tests; they add up to 1."""
_HELD = ("service", "disagreement", "attack", "drift")
_FAILURES = frozenset({"errors", "service", "broken", "slow"})
"""Tests to which a request without an answer counts as well."""
STREAK = 3
"""At least so many candidate failures in a row with none at the control end the rollout without any test."""
STREAK_CHANCE = 1e-5
"""So many more are needed that a candidate like the champion would begin such a row with at most this probability."""
BROKEN = 5
"""So many probes in a row that only the champion answered end it too."""
SLOW_MARGIN = 0.05
"""A step does not end while the candidate's share of slow answers is proven further above the champion's than this."""
SUSPECT = 0.25
"""A step does not end while the candidate was slower by so much of late (mean U): what is in doubt is measured on."""
MIN_BLOCKS = 3
"""Stretches of time in which latency was compared before the last step that compares it may end."""
MIN_PAIRS = 20
"""Probes answered by both arms before the first step may end."""
SPLIT_ROUTED = 200
"""Live requests of a step before its split is compared with its weight."""
SPLIT_SIGMAS = 6.0
"""Standard deviations; the comparison is made at every observation, so the usual 3 would give false alarms."""
SPLIT_SLACK = 16
"""Requests under way at an observation are in one counter and not yet in the other."""
SPLIT_SECONDS = 0.1
"""So far apart the two counters may have been read."""


class Conclusion(Enum):
    """What a judgement comes to."""

    CONTINUE = auto()
    ENOUGH = auto()
    ROLL_BACK = auto()
    INCONCLUSIVE = auto()


@dataclass(frozen=True)
class Judgement:
    """A conclusion with the sentence and the numbers that led to it."""

    outcome: Conclusion
    reason: str
    evidence: dict[str, float] = field(default_factory=dict)
    cause: Cause = Cause.NONE
    """Where the fault was, when this ends the rollout."""


Fault = tuple[str, Cause]
"""The sentence that speaks against a candidate, and where the fault is."""


@dataclass(frozen=True)
class Limits:
    """What the rollout's plan allows; `holdfast.workload.schema.RolloutPlan` explains each limit."""

    alpha: float = 0.05
    margin: float = 0.01
    max_errors: float | None = None
    max_disagreement: float = 0.25
    max_drift: float = 0.1
    classes: int = 2
    max_attack: float | None = None
    """Largest attack success on the candidate: what the gate measured plus the excess allowed; None: not known."""
    slow_ms: float = 250.0
    floor_ms: float = 25.0
    min_pairs: int = MIN_PAIRS
    hold_without_champion: bool = False
    probation: bool = False
    """There is no champion: the control is the same model, so the candidate is held to absolute limits as well, and
    its latency is compared with nothing."""

    @property
    def stall_seconds(self) -> float:
        """A machine that keeps the controller or the traffic waiting for longer is too busy to judge latency."""
        return self.slow_ms / 2000


@dataclass(frozen=True)
class Comparisons:
    """Tests of the candidate against the champion; each keeps a reserve for a candidate that turns bad late."""

    errors: TwoArm = TwoArm()
    broken: TwoArm = TwoArm()
    slow: PairedLatency = PairedLatency()

    def add(self, more: Counts, edges_ms: tuple[float, ...], limits: Limits, *, timed: bool) -> "Comparisons":
        """After what one observation adds; `timed`: whether latency is compared now."""
        candidate, champion, probes = more.candidate, more.champion, more.probes
        return Comparisons(
            self.errors.add(candidate=_errors(candidate), control=_errors(champion)),
            # Probes that the champion broke are not counted, so its share of those is that of its own failures.
            self.broken.add(candidate=(probes.broken, probes.pairs + probes.broken), control=_errors(champion)),
            self._slower(more, edges_ms, limits) if timed else self.without_open_block().slow,
        )

    def without_open_block(self) -> "Comparisons":
        """What began under one weight is not compared under the next."""
        return replace(self, slow=replace(self.slow, waiting=Counts()))

    def _slower(self, more: Counts, edges_ms: tuple[float, ...], limits: Limits) -> PairedLatency:
        return self.slow.add(more, edges_ms, floor_ms=limits.floor_ms, stall_seconds=limits.stall_seconds)


@dataclass(frozen=True)
class Held:
    """Tests of the candidate against limits known beforehand, over one stretch of the rollout."""

    service: OneArm
    disagreement: OneArm
    attack: OneArm
    drift: PredictionDrift

    @classmethod
    def fresh(cls, limits: Limits) -> "Held":
        """Without evidence."""
        return cls(
            OneArm(limits.max_errors or 0.0),
            OneArm(limits.max_disagreement),
            OneArm(limits.max_attack or 0.0),
            PredictionDrift(limits.max_drift, limits.classes),
        )

    def add(self, more: Counts) -> "Held":
        """After what one observation adds."""
        probes = more.probes
        return Held(
            self.service.add(*_errors(more.candidate)),
            self.disagreement.add(probes.disagreements, probes.pairs),
            self.attack.add(probes.fooled, probes.attacks),
            self.drift.add(probes.gained, probes.lost, probes.pairs),
        )

    def values(self) -> dict[str, float]:
        """The e-value of each test."""
        return {name: getattr(self, name).value for name in _HELD}


@dataclass(frozen=True)
class Tests:
    """The tests' state after some observations.

    Those against limits run twice: over the whole rollout, which finds small effects, and over each state alone, which
    finds a candidate that turns bad after it was good. Half of the stake is on the first, the other half is divided
    over the states; the sum is an e-process again, because a state's share waits at 1 until that state begins.
    """

    compared: Comparisons
    whole: Held
    current: Held
    banked: dict[str, float]
    """Sum of the final e-values of the states that ended."""
    waiting: int
    """States to come."""
    states: int
    streak: int = 0
    """Candidate failures in a row, as far as counters can tell."""
    streak_limit: int = STREAK
    broken: int = 0
    """Probes in a row that the candidate broke, as far as counters can tell."""
    champion_failing: bool = False
    """Whether so many of the champion's last answers failed that a row of the candidate's is no wonder."""

    @classmethod
    def fresh(cls, limits: Limits, states: int) -> "Tests":
        """Before the first observation of a rollout with so many states that are watched."""
        held = Held.fresh(limits)
        return cls(Comparisons(), held, held, dict.fromkeys(_HELD, 0.0), states - 1, states)

    def next_state(self, limits: Limits) -> "Tests":
        """When the next watched state is entered."""
        banked = {name: self.banked[name] + value for name, value in self.current.values().items()}
        compared = self.compared.without_open_block()
        return replace(self, compared=compared, current=Held.fresh(limits), banked=banked, waiting=self.waiting - 1)

    def add(
        self, more: Counts, earlier: Counts, edges_ms: tuple[float, ...], limits: Limits, *, timed: bool = True
    ) -> "Tests":
        """After what one observation adds to `earlier`; `timed`: whether latency is compared now."""
        control, failing = earlier.champion, _fails_in_rows(more.champion)
        return replace(
            self,
            compared=self.compared.add(more, edges_ms, limits, timed=timed),
            whole=self.whole.add(more),
            current=self.current.add(more),
            streak=_streak(self.streak, more.candidate, more.champion),
            streak_limit=_streak_limit(control),
            broken=0 if more.probes.pairs or failing else self.broken + more.probes.broken,
            champion_failing=failing,
        )

    @property
    def busy(self) -> bool:
        """Whether this machine was too busy to compare latency most of the time."""
        return self.compared.slow.stalled > self.compared.slow.blocks

    def values(self) -> dict[str, float]:
        """The e-value of each test."""
        compared = {name: getattr(self.compared, name).value for name in ("errors", "broken", "slow")}
        whole, current = self.whole.values(), self.current.values()
        return compared | {
            name: 0.5 * whole[name] + 0.5 * (self.banked[name] + current[name] + self.waiting) / self.states
            for name in _HELD
        }


@dataclass(frozen=True)
class Progress:
    """How far a rollout is at one observation: what a judgement is about."""

    total: Counts
    """Since the rollout began."""
    here: Counts
    """Since the current state was entered."""
    now: Reading
    weight: int
    """Percent, as wanted."""
    missing: int
    """How many of the candidate's own answers this state still wants; 0 or less is enough."""
    seconds: float
    """In this state, observations without data included."""
    min_seconds: float
    max_seconds: float
    last_step: bool
    """Whether enough here means promotion."""
    timed: bool = True
    """Whether latency is compared in this state."""
    timed_later: bool = False
    """Whether it is in a later one."""


def judge(tests: Tests, progress: Progress, limits: Limits) -> Judgement:
    """The judgement at one observation; `tests` are those after it."""
    facts = evidence(tests, progress.total)
    excused = tests.champion_failing or _fails_in_rows(progress.here.champion)
    if progress.total.ejections and excused and progress.now.candidate_alive:
        # What an ejected candidate does not answer counts as failed, so the tests would blame it for that.
        both = "the candidate was ejected while the champion failed too"
        return Judgement(Conclusion.INCONCLUSIVE, both, facts, Cause.CHAMPION)
    bad = _hard_limit(tests, progress) or _proven(tests, progress, limits)
    if bad:
        reason, cause = bad
        return Judgement(Conclusion.ROLL_BACK, reason, facts, cause)
    if not progress.now.champion_alive:
        return _without_champion(limits, facts)
    wanting = _wanting(tests, progress, limits)
    if wanting is None:
        answers = progress.total.candidate.answered
        return Judgement(Conclusion.ENOUGH, f"the candidate gave {answers} answers, no test objects", facts)
    if progress.seconds >= progress.max_seconds:
        late = f"no verdict within {progress.max_seconds:g} s: {wanting}"
        return Judgement(Conclusion.INCONCLUSIVE, late, facts, Cause.HOST if tests.busy else Cause.EVIDENCE)
    return Judgement(Conclusion.CONTINUE, wanting, facts)


def evidence(tests: Tests, total: Counts) -> dict[str, float]:
    """The numbers that a judgement rests on."""
    candidate, champion, probes = total.candidate, total.champion, total.probes
    return {
        **{f"e_{name}": round(value, 4) for name, value in tests.values().items()},
        "error_bound": round(bound(total), 5),
        "pairs": probes.pairs,
        "disagreements": probes.disagreements,
        "broken": probes.broken,
        "attacks": probes.attacks,
        "fooled": probes.fooled,
        "ejections": total.ejections,
        "latency_blocks": tests.compared.slow.blocks,
        "stalled_blocks": tests.compared.slow.stalled,
        "candidate_timed_out": candidate.timed_out,
        "champion_timed_out": champion.timed_out,
        "candidate_failed": candidate.failed,
        "candidate_answered": candidate.answered,
        "champion_failed": champion.failed,
        "champion_answered": champion.answered,
    }


def bound(total: Counts, *, excused: bool = True) -> float:
    """Newcombe's 95 % upper bound of the candidate's failure share minus the champion's; 1 without answers."""
    candidate, champion = total.candidate, total.champion if excused else Arm(answered=10**9)
    if candidate.answered == 0 or champion.answered == 0:
        return 1.0
    return newcombe_upper(candidate.failed, candidate.answered, champion.failed, champion.answered)


def slow_answers(arm: Arm, edges_ms: tuple[float, ...], slow_ms: float) -> int:
    """Answers slower than the plan's limit (its next bucket edge), and attempts that timed out."""
    edge = _edge_at(edges_ms, slow_ms)
    return arm.timed_out + (0 if edge is None else arm.over(edge))


def _hard_limit(tests: Tests, progress: Progress) -> Fault | None:
    if not progress.now.candidate_alive:
        return f"the candidate's server is gone{_how(progress.now)}", of_exit(progress.now.candidate_exit)
    whose = _whose_failures(progress.total.candidate)
    if progress.total.ejections:
        return f"the candidate was ejected after failures in a row ({progress.total.ejections} times)", whose
    row = _failing_row(tests)
    if row is not None:
        return row, whose
    wrong = _wrong_split(progress)
    return None if wrong is None else (wrong, Cause.ROUTER)


def _how(now: Reading) -> str:
    """How its process ended, where that is known."""
    code = now.candidate_exit
    if code is None:
        return ""
    return f" (exit code {code})" if code >= 0 else f" (ended by signal {-code})"


def _whose_failures(arm: Arm) -> Cause:
    """A server that sends nothing may be stopped, starved or cut off; an error that it sends is its own."""
    return Cause.SERVER if arm.failed and 2 * arm.unanswered > arm.failed else Cause.MODEL


def _failing_row(tests: Tests) -> str | None:
    if tests.streak >= tests.streak_limit:
        return f"{tests.streak} candidate failures in a row, none at the champion"
    if tests.broken >= BROKEN:
        return f"{tests.broken} probes in a row without a whole answer from the candidate, the champion gave one"
    return None


def _wrong_split(progress: Progress) -> str | None:
    """The masking check: a candidate that is routed to and does not answer has a counter that does not grow."""
    n, share = progress.here.routed, progress.weight / 100
    if not progress.weight or n < SPLIT_ROUTED:
        return None
    off = progress.here.live - progress.here.chosen - n * share
    slack = SPLIT_SLACK + SPLIT_SECONDS * share * n / max(progress.here.seconds, SPLIT_SECONDS)
    if abs(off) <= SPLIT_SIGMAS * math.sqrt(n * share * (1 - share)) + slack:
        return None
    answered = progress.here.live - progress.here.chosen
    return f"the candidate answered {answered} of {n} live requests at weight {progress.weight} %"


def _proven(tests: Tests, progress: Progress, limits: Limits) -> Fault | None:
    sentences = {
        "errors": "the candidate fails more often than the champion",
        "service": f"the candidate fails more than {limits.max_errors or 0:.1%} of its answers",
        "broken": "the candidate breaks more probes than the champion",
        "slow": f"the candidate takes longer than the champion, in {tests.compared.slow.blocks} comparisons",
        "disagreement": f"candidate and champion differ in more than {limits.max_disagreement:.0%} of paired answers",
        "drift": f"a class is predicted more than {limits.max_drift:.0%} more or less often than by the champion",
        "attack": f"attacks succeed on the candidate in more than {limits.max_attack or 0:.1%} of the probes",
    }
    for name, value in tests.values().items():
        needed = 1 / (limits.alpha * ALPHA_SHARES[name])
        if value >= needed:
            whose = _whose_failures(progress.total.candidate) if name in _FAILURES else Cause.MODEL
            return f"{sentences[name]} (e-value {value:.3g}, needed {needed:.3g})", whose
    return None


def _without_champion(limits: Limits, facts: dict[str, float]) -> Judgement:
    if limits.hold_without_champion:
        return Judgement(Conclusion.CONTINUE, "the champion's server is gone; the plan asks to hold the weight", facts)
    gone = "the champion's server is gone: nothing to compare with"
    return Judgement(Conclusion.INCONCLUSIVE, gone, facts, Cause.CHAMPION)


def _wanting(tests: Tests, progress: Progress, limits: Limits) -> str | None:
    """What the current state still lacks before the next one; None when nothing."""
    if progress.missing > 0:
        return f"{progress.missing} of the candidate's own answers are missing"
    if progress.total.probes.pairs < limits.min_pairs:
        return f"{limits.min_pairs - progress.total.probes.pairs} paired answers are missing"
    if progress.seconds < progress.min_seconds:
        return f"{progress.min_seconds - progress.seconds:.0f} s of the step's least time are left"
    slow = _slower(tests, progress, limits) if progress.timed else None
    return _disagrees(progress, limits) or _over_margin(progress, limits) or slow or _unproven(progress, limits)


def _disagrees(progress: Progress, limits: Limits) -> str | None:
    probes = progress.here.probes
    if probes.disagreements > limits.max_disagreement * probes.pairs:
        return f"{probes.disagreements} of {probes.pairs} paired answers disagree"
    return None


def _over_margin(progress: Progress, limits: Limits) -> str | None:
    """On probation the control is the same model, so it excuses nothing."""
    candidate = progress.here.candidate
    excused = Arm() if limits.probation else progress.here.champion
    failed = limits.margin + excused.failed / max(excused.answered, 1)
    if candidate.failed > failed * candidate.answered:
        return f"the candidate failed {candidate.failed} of {candidate.answered}, more than {failed:.1%}"
    return None


def _slower(tests: Tests, progress: Progress, limits: Limits) -> str | None:
    """Doubts about latency, and too little of it; each passes with time where the arms are alike."""
    test = tests.compared.slow
    if test.recent >= SUSPECT:
        return f"the candidate was slower than the champion of late (e-value {test.value:.3g})"
    if test.blocks < MIN_BLOCKS and not progress.timed_later:
        busy = f" (the machine was too busy {test.stalled} times)" if test.stalled else ""
        return f"latency was compared {test.blocks} times of {MIN_BLOCKS}{busy}"
    return _more_slow_answers(progress, limits)


def _more_slow_answers(progress: Progress, limits: Limits) -> str | None:
    """Newcombe's bound, so that chance does not hold up a candidate like the champion."""
    arms = (progress.here.candidate, progress.here.champion)
    (ours, theirs) = (slow_answers(arm, progress.now.edges_ms, limits.slow_ms) for arm in arms)
    n, m = (arm.timed + arm.timed_out for arm in arms)
    if n == 0 or m == 0 or newcombe_upper(theirs, m, ours, n) >= -SLOW_MARGIN:
        return None
    return f"{ours} of {n} answers took longer than {limits.slow_ms:g} ms, {theirs} of {m} of the champion's"


def _unproven(progress: Progress, limits: Limits) -> str | None:
    """The last step ends only with a proof that the candidate is not worse by the margin."""
    if not progress.last_step:
        return None
    upper = bound(progress.total, excused=not limits.probation)
    if upper >= limits.margin:
        return (
            f"the candidate may fail {upper:.2%} more often than the champion; proof below {limits.margin:.2%} needed"
        )
    return None


def _streak(before: int, candidate: Arm, champion: Arm) -> int:
    """What timed out neither adds to a row nor breaks it."""
    if champion.wrong or candidate.wrong < candidate.answered - candidate.timed_out:
        return 0
    return before + candidate.wrong


def _streak_limit(control: Arm) -> int:
    """From the champion's failure rate so far, with a prior of 1 % worth 50 answers."""
    rate = min((0.5 + control.failed) / (50 + control.answered), 0.5)
    return max(STREAK, math.ceil(math.log(STREAK_CHANCE) / math.log(rate)))


def _fails_in_rows(arm: Arm) -> bool:
    """Whether an arm that fails so often may well fail as often in a row as a router ejects for."""
    return _streak_limit(arm) > STREAK


def _errors(arm: Arm) -> tuple[int, int]:
    """What no load causes. Counters of two sources may be read a moment apart; no more failures than answers."""
    answered = max(arm.answered - arm.timed_out, 0)
    return min(arm.wrong, answered), answered


def _edge_at(edges_ms: tuple[float, ...], limit_ms: float) -> int | None:
    """The first edge that is not below the limit."""
    return next((i for i, edge in enumerate(edges_ms) if edge >= limit_ms - 1e-9), None)
