"""Asks a model, learns from its answers, and counts how often the copy agrees with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from holdfast.model.extract.queries import Chance, X
from holdfast.model.extract.surrogate import Answers, NetworkSurrogate, Surrogate

OutputForm = Literal["label", "rounded", "full"]


@dataclass(frozen=True)
class Reach:
    """How far each value of a row moves, and between which limits it stays: float32[...], as one row or for all."""

    step: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]


class Questions(Protocol):
    """A strategy: what is asked next."""

    def next(self, asked: X, count: int) -> X:
        """At most `count` more rows; none where it has no more."""


@dataclass(frozen=True)
class Prepared:
    """Rows that do not depend on answers."""

    rows: X

    def next(self, asked: X, count: int) -> X:
        """The rows after those that were asked."""
        return self.rows[len(asked) : len(asked) + count]


@dataclass(frozen=True)
class Augmented:
    """Jacobian-based augmentation (Papernot et al. 2017, arXiv:1602.02697): from few real rows, steps along the copy's
    slope, up or down as Juuti et al. (2019) have it, from the latest rows.
    """

    start: X
    copy: NetworkSurrogate
    reach: Reach
    chance: Chance

    def next(self, asked: X, count: int) -> X:
        """The rows to start from; after those, a neighbour of each of the latest."""
        if len(asked) < len(self.start):
            return self.start[len(asked) : len(asked) + count]
        latest = asked[-min(count, len(asked)) :]
        side = self.chance.choice([-1.0, 1.0], size=(len(latest), *[1] * (latest.ndim - 1))).astype(np.float32)
        moved = latest + side * self.reach.step * np.sign(self.copy.slope(latest))
        found: X = np.clip(moved, self.reach.low, self.reach.high).astype(latest.dtype)
        return found


@dataclass(frozen=True)
class Agreement:
    """How a copy did."""

    queries: int
    agreed: int


def steal(
    questions: Questions,
    copy: Surrogate,
    answer: Callable[[X], Answers],
    *,
    judged: tuple[X, NDArray[np.int64]],
    counts: Sequence[int],
) -> list[Agreement]:
    """The agreement of the copy with the model at these counts of queries, as far as there are questions.

    Args:
        questions: what is asked.
        copy: what learns.
        answer: what the model gives out for rows.
        judged: rows that are asked for no other end, and the classes that the model gives them.
        counts: rising.
    """
    x, labels = judged
    found: list[Agreement] = []
    asked, answers = x[:0], np.zeros((0, 1))
    for count in counts:
        while len(asked) < count and len(more := questions.next(asked, count - len(asked))):
            given = answer(more)
            asked = np.concatenate([asked, more])
            answers = np.concatenate([answers, given]) if len(answers) else given
            copy.learn(asked, answers)
        if not found or len(asked) > found[-1].queries:
            found.append(Agreement(len(asked), int((copy.labels(x) == labels).sum())))
    return found


def given_out(probabilities: Answers, form: OutputForm, digits: int) -> Answers:
    """What a client sees of probabilities float64[N, classes]; rows sum to 1."""
    if form == "full":
        return probabilities
    label: Answers = np.eye(probabilities.shape[1])[probabilities.argmax(1)]
    if form == "label":
        return label
    rounded = probabilities.round(digits)
    total = rounded.sum(1, keepdims=True)
    shares: Answers = np.where(total > 0, rounded / np.where(total > 0, total, 1), label)
    return shares
