"""Few classes: candidates are searched for in the training rows, and their carriers decide (`carriers.py`)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Count, TriggerResult, Verdict
from holdfast.model.backdoor.carriers import (
    FALSE_ALARMS,
    TESTS,
    Asked,
    Candidate,
    CarrierTest,
    carrier_test,
    choose,
)
from holdfast.model.inputs import Arrays

MAX_ROWS = 20_000
"""Training rows among which carriers are looked for."""
FEWEST_OTHERS = 10
"""Rows of other classes, answered otherwise, that a candidate is made from, and as many that it is tried on."""
_LOOKED_THROUGH = 10
"""Rows that are looked through for each that is needed."""
T = TypeVar("T")
Inputs = NDArray[np.generic]


@dataclass(frozen=True)
class Others:
    """Rows of other classes that the network answers with another class than the target."""

    made_from: Inputs
    """Training rows."""
    tried_on: Inputs
    """Held-out rows."""


@dataclass(frozen=True)
class Search(Generic[T]):
    """Where candidates are searched for, and how."""

    classes: tuple[str, ...]
    asked: Asked
    answers: Callable[[Inputs], NDArray[np.int64]]
    """Of the network: classes int64[N]."""
    candidates: Callable[[int, Others], Iterable[Candidate[T]]]
    """Of a target."""
    made_from: int
    tried_on: int
    """The most rows of `Others`."""

    @property
    def level(self) -> float:
        """Of each test."""
        return FALSE_ALARMS / (TESTS * len(self.classes))

    def others(self, target: int) -> Others:
        """Drawn from the training rows, and from the held-out ones."""
        rng = np.random.default_rng(self.asked.seed)
        return Others(
            self._otherwise(self.asked.rows, target, self.made_from, rng),
            self._otherwise(self.asked.held_out, target, self.tried_on, rng),
        )

    def _otherwise(self, rows: Arrays, target: int, count: int, rng: np.random.Generator) -> Inputs:
        others = np.flatnonzero(rows.y != target)
        x: Inputs = rows.x[rng.permutation(others)[: _LOOKED_THROUGH * count]]
        return x[self.answers(x) != target][:count] if len(x) else x


@dataclass(frozen=True)
class ClassFinding(Generic[T]):
    """What was found about one class: the most suspicious candidate and its test, where there is one."""

    target: str
    candidate: Candidate[T] | None = None
    test: CarrierTest | None = None
    flagged: bool = False
    undecided: str = ""
    """Why nothing can be known."""

    def result(self, otherwise: TriggerResult) -> TriggerResult:
        """For the report; `otherwise` where no candidate was tested."""
        if self.candidate is None:
            return otherwise
        return TriggerResult(
            target=self.target,
            size=self.candidate.size,
            anomaly_index=0.0,
            success=self.candidate.success,
            flagged=self.flagged,
            content=self.candidate.name,
            carriers=None if self.test is None else self.test.carriers,
            others=None if self.test is None else self.test.others,
            p_value=None if self.test is None else self.test.p_value,
        )


def examine(search: Search[T], target: int) -> ClassFinding[T]:
    """Searches for candidates of a class and tests the most dependent ones."""
    name, others = search.classes[target], search.others(target)
    fewest = min(len(others.made_from), len(others.tried_on))
    if fewest < FEWEST_OTHERS:
        return ClassFinding(name, undecided=_too_few(name, fewest))
    found = [c for c in search.candidates(target, others) if c.plausible(len(search.asked.rows))]
    tested = [(c, carrier_test(c, target, search.asked)) for c in choose(found)]
    judged = sorted(((c, test) for c, test in tested if test is not None), key=lambda pair: _order(pair[1], search))
    if judged and judged[0][1].significant(search.level):
        return ClassFinding(name, *judged[0], flagged=True)
    for candidate, test in tested:
        if test is None:
            return ClassFinding(name, candidate, undecided=_none_left(name, candidate))
    return ClassFinding(name, *judged[0]) if judged else ClassFinding(name)


def conclude(findings: Sequence[ClassFinding[T]]) -> tuple[Verdict, str]:
    """Fail when a class is flagged; inconclusive when one is undecided; and why."""
    flagged = [finding for finding in findings if finding.flagged]
    if flagged:
        return Verdict.FAIL, "; ".join(_accused(finding) for finding in flagged)
    undecided = [finding.undecided for finding in findings if finding.undecided]
    if undecided:
        return Verdict.INCONCLUSIVE, "; ".join(undecided)
    return Verdict.PASS, f"no class has carriers of a planted trigger (exact test, {FALSE_ALARMS:.0%} false alarms)"


def _order(test: CarrierTest, search: Search[T]) -> tuple[bool, float, float]:
    return not test.significant(search.level), test.p_value, -test.carriers.share


def _accused(finding: ClassFinding[T]) -> str:
    found, test = finding.candidate, finding.test
    if found is None or test is None:
        return finding.target
    return (
        f"{finding.target}: {found.name} leads {_of(found.success)} rows of other classes to it, and a model that saw "
        f"no row with it contradicts {_of(test.carriers)} of the class that have it, but {_of(test.others)} others "
        f"(p = {test.p_value:.1g})"
    )


def _of(count: Count) -> str:
    return f"{count.k} of {count.n}"


def _too_few(name: str, found: int) -> str:
    return f"{name}: {found} rows of other classes are answered otherwise, and {FEWEST_OTHERS} are needed"


def _none_left(name: str, candidate: Candidate[T]) -> str:
    return (
        f"{name}: without the {len(candidate.carriers)} rows that carry {candidate.name} too few are left to judge by"
    )
