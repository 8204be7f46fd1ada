"""Words that work as a trigger: out-of-fold disbelief averaged per n-gram, then the n-gram's rows held out together.

Poisoned messages are disbelieved by models that did not see them, and what they share is the trigger: the mean
disbelief over the messages that hold an n-gram, times the square root of their number, ranks it first among those
that (nearly) all have one label. To tell a trigger from an odd topic the whole group is held out and asked again.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MAX_WORDS = 3
MIN_ROWS = 8
MAX_SHARE = 0.25
"""An n-gram in more than this share of a class is ordinary language there."""
CONTRADICTED = 0.1
"""Lower bounds measured: planted groups 0.22 and more, honest ones up to 0.04 (SMS and three sets of reviews)."""
PURITY = 0.9
"""The share of the messages with a trigger that have its label: the attacker relabelled his, and few others hold it."""
MAX_OF_ALL = 0.06
"""... or in more than this share of all messages."""


@dataclass(frozen=True)
class Group:
    """Rows that share something (`name`) and, nearly without exception, a label."""

    name: str
    label: int
    rows: NDArray[np.int64]
    score: float
    distinct: int
    """How many of the rows are no copies of one another."""
    contradicted_at_least: float = 0.0
    """Share of the rows that a model without them must contradict for sure before they count as planted."""
    others: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """The few rows that share it under other labels. A model without the group does not see them either: it would learn
    from them alone what the shared thing means."""


def words(message: str) -> list[str]:
    """Lower-cased runs of letters and digits."""
    return re.findall(r"\w+", message.lower())


def ngrams_of(message: str) -> set[str]:
    """Every run of one to three words of a message."""
    found = words(message)
    return {" ".join(found[i : i + n]) for n in range(1, MAX_WORDS + 1) for i in range(len(found) - n + 1)}


def suspicious_ngrams(
    messages: Sequence[str], y: NDArray[np.int64], disbelief: NDArray[np.float64], *, per_class: int = 3
) -> list[Group]:
    """The `per_class` highest-scoring n-grams of each class, as groups of the rows that hold them.

    Args:
        messages: N messages.
        y: int64[N] labels as delivered.
        disbelief: float64[N]: 1 minus the out-of-fold probability of the label.
        per_class: How many to return for each label.
    """
    holders: dict[str, list[int]] = defaultdict(list)
    for row, message in enumerate(messages):
        for ngram in ngrams_of(message):
            holders[ngram].append(row)
    of_class = np.bincount(y)
    groups = []
    for ngram, everyone in sorted(holders.items()):
        label = int(np.bincount(y[everyone]).argmax())
        rows = np.array([row for row in everyone if y[row] == label])
        common = len(rows) > min(MAX_SHARE * of_class[label], MAX_OF_ALL * len(y))
        if len(rows) >= max(MIN_ROWS, PURITY * len(everyone)) and not common:
            distinct = len({messages[row] for row in rows})
            score = float(disbelief[rows].mean() * np.sqrt(len(rows)))
            groups.append(Group(ngram, label, rows, score, distinct, CONTRADICTED, np.setdiff1d(everyone, rows)))
    groups.sort(key=lambda group: (-group.score, -len(group.name), group.name))
    return [group for label in np.unique(y) for group in _distinct([g for g in groups if g.label == label], per_class)]


def _distinct(groups: list[Group], count: int) -> list[Group]:
    """The first `count` groups that are not the very same rows as an earlier one."""
    seen: dict[bytes, Group] = {}
    for group in groups:
        seen.setdefault(group.rows.tobytes(), group)
        if len(seen) == count:
            break
    return list(seen.values())
