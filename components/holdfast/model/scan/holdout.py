"""Asks again about groups of rows, with a model that saw none of them.

A planted group carries its label only by agreement among its own rows: without the group, nothing in the data
supports the label. An honest group, however odd, is mostly recognized from the rest of its class. All rows that share
something having one label, the agreement itself is judged: how improbable is it for a model without the group? That is
fair where classes overlap: rows that no model can tell apart are no surprise under any label. Words that honestly
separate classes («bad», «best») surprise too; so of an n-gram's rows some share must be contradicted for sure besides.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from holdfast.model.inputs import Arrays, without
from holdfast.model.learners import Learner, rows_to_fit
from holdfast.model.scan.crossfit import own
from holdfast.model.scan.labels import ALPHA
from holdfast.model.scan.ngrams import MIN_ROWS, Group
from holdfast.model.scan.pairs import MAX_PAIRS
from holdfast.statistics import lower_bound

IMPROBABLE = float(np.log(MAX_PAIRS / 0.01))
"""Surprise, -log of a probability: one clean set in a hundred, over all groups that are looked at (Bonferroni)."""
SURE = 0.1
MOST_OF_A_ROW = 3.0
"""What one row adds at most: a model that is too sure of itself about a few rows decides nothing."""


@dataclass(frozen=True)
class GroupTest:
    """A group, and what a model without it thinks of its rows."""

    group: Group
    contradicted: int
    """Rows to whose label it gives less than `SURE`."""
    surprise: float
    """-log of the probability that it gives to the label of all distinct rows."""

    @property
    def contradicted_share(self) -> float:
        """A lower bound of the true share, with confidence 95 %."""
        return lower_bound(self.contradicted, len(self.group.rows), ALPHA)

    @property
    def planted(self) -> bool:
        """Whether nothing outside the group supports its label."""
        surprising = self.surprise > IMPROBABLE
        return surprising and self.contradicted_share >= self.group.contradicted_at_least


def hold_out(learn: Learner, rows: Arrays, groups: list[Group], seed: int) -> list[GroupTest]:
    """Asks about every group, one fit per label without the rows of any of its groups.

    Planted ones come first, then the most contradicted.
    """
    answers: list[GroupTest] = []
    for label in sorted({group.label for group in groups}):
        answers += _hold_out_label(learn, rows, [group for group in groups if group.label == label], seed)
    return sorted(answers, key=lambda answer: (-answer.planted, -answer.contradicted_share, -answer.surprise))


def planted_groups(learn: Learner, rows: Arrays, groups: list[Group], seed: int) -> list[GroupTest]:
    """The groups that were planted, and the most contradicted group when none was.

    The worst group is taken out before the others are asked again: its rows mislead every answer about the rest.
    """
    planted: list[GroupTest] = []
    gone = np.zeros(0, dtype=np.int64)
    while True:
        left = [_left(group, gone) for group in groups]
        others = without(rows, gone.tolist()) if len(gone) else rows
        answers = hold_out(learn, others, [_shifted(g, gone) for g in left if len(g.rows) >= MIN_ROWS], seed)
        if not answers or not answers[0].planted:
            return planted or answers[:1]
        worst = next(group for group in left if group.name == answers[0].group.name)
        planted.append(replace(answers[0], group=worst))
        gone = np.union1d(gone, worst.rows)


def _hold_out_label(learn: Learner, rows: Arrays, groups: list[Group], seed: int) -> list[GroupTest]:
    held = np.unique(np.concatenate([group.rows for group in groups]))
    unseen = np.concatenate([held, *(group.others for group in groups)])
    fitted = rows_to_fit(rows, np.setdiff1d(np.arange(len(rows)), unseen), seed)
    if len(np.unique(fitted.y)) < len(np.unique(rows.y)):
        return []
    predict = learn(fitted, seed)
    belief = np.ones(len(rows))
    belief[held] = own(predict(rows.x[held]), rows.y[held])
    return [_answer(group, belief[group.rows]) for group in groups]


def _answer(group: Group, belief: NDArray[np.float64]) -> GroupTest:
    surprise = np.minimum(-np.log(np.maximum(belief, 1e-12)), MOST_OF_A_ROW).mean()
    return GroupTest(group, int((belief < SURE).sum()), group.distinct * float(surprise))


def _left(group: Group, gone: NDArray[np.int64]) -> Group:
    """The group without the rows that are gone."""
    rows = np.setdiff1d(group.rows, gone)
    others = np.setdiff1d(group.others, gone)
    return replace(group, rows=rows, others=others, distinct=min(group.distinct, len(rows)))


def _shifted(group: Group, gone: NDArray[np.int64]) -> Group:
    """The group in the positions that its rows have when `gone` are left out."""
    rows, others = (part - np.searchsorted(gone, part) for part in (group.rows, group.others))
    return replace(group, rows=rows, others=others)
