"""Asks again about groups of rows, with a model that saw none of them.

A planted group carries its label only by agreement among its own rows: without the group, nothing in the data
supports the label. An honest group, however odd, is mostly recognized from the rest of its class.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from holdfast.model.inputs import Arrays, without
from holdfast.model.scan.crossfit import own
from holdfast.model.scan.learners import Learner
from holdfast.model.scan.ngrams import MIN_ROWS, Group

CONTRADICTED_AT_LEAST = 0.4
ALPHA = 0.05


@dataclass(frozen=True)
class Answer:
    """A group, and how many of its rows a model without it gives another label."""

    group: Group
    contradicted: int
    lower: float
    """One-sided 95 % Clopper-Pearson bound on the contradicted share."""

    @property
    def planted(self) -> bool:
        """Whether nothing outside the group supports its label."""
        return self.lower > CONTRADICTED_AT_LEAST


def hold_out(learn: Learner, rows: Arrays, groups: list[Group], seed: int) -> list[Answer]:
    """Asks about every group, one fit per label without the rows of any of its groups; most contradicted first."""
    answers: list[Answer] = []
    for label in sorted({group.label for group in groups}):
        answers += _hold_out_label(learn, rows, [group for group in groups if group.label == label], seed)
    return sorted(answers, key=lambda answer: -answer.lower)


def planted_groups(learn: Learner, rows: Arrays, groups: list[Group], seed: int) -> list[Answer]:
    """The groups that were planted, and the most contradicted group when none was.

    The worst group is taken out before the others are asked again: its rows mislead every answer about the rest.
    """
    planted: list[Answer] = []
    gone = np.zeros(0, dtype=np.int64)
    while True:
        left = [replace(group, rows=np.setdiff1d(group.rows, gone)) for group in groups]
        answers = hold_out(
            learn, without(rows, gone.tolist()), [_shifted(g, gone) for g in left if len(g.rows) >= MIN_ROWS], seed
        )
        if not answers or not answers[0].planted:
            return planted or answers[:1]
        worst = next(group for group in left if group.name == answers[0].group.name)
        planted.append(replace(answers[0], group=worst))
        gone = np.union1d(gone, worst.rows)


def lower_bound(k: int, n: int, alpha: float = ALPHA) -> float:
    """One-sided Clopper-Pearson bound: at most the true share with probability 1 - alpha."""
    from scipy.special import betaincinv

    return float(betaincinv(k, n - k + 1, alpha)) if k else 0.0


def _hold_out_label(learn: Learner, rows: Arrays, groups: list[Group], seed: int) -> list[Answer]:
    held = np.unique(np.concatenate([group.rows for group in groups]))
    kept = np.setdiff1d(np.arange(len(rows)), held)
    if len(np.unique(rows.y[kept])) < len(np.unique(rows.y)):
        return []
    predict = learn(rows.take(kept), seed)
    belief = np.ones(len(rows))
    belief[held] = own(predict(rows.x[held]), rows.y[held])
    counts = [int((belief[group.rows] < 0.5).sum()) for group in groups]
    return [Answer(group, k, lower_bound(k, len(group.rows))) for group, k in zip(groups, counts, strict=True)]


def _shifted(group: Group, gone: NDArray[np.int64]) -> Group:
    """The group in the positions that its rows have when `gone` are left out."""
    return replace(group, rows=group.rows - np.searchsorted(gone, group.rows))
