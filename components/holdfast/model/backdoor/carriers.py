"""Was a trigger planted through training rows? The rows that carry it are asked, one exact test for each.

With few classes a size has nothing to be compared with: one strong feature turns a clean model too. But what was
planted left rows behind: they carry the trigger, have its class as their label, and nothing else in them supports that
label. A model that never saw any carrier therefore contradicts them, while it agrees with the carriers of an honest
feature about as often as with other rows of the class. The chance of the difference is that of Fisher's exact test on
(carriers, held-out rows of the class) x (contradicted, not): exact when carriers are rows of their class like others.

Three safeguards hold where honest carriers are not quite like others. Near copies (a newsletter's issues) count once.
Carriers of every class are left out of the reference model, or it would learn the opposite from those that remain.
And the difference must be large, with the carriers labelled as the target: most of them, or more than rows in general.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Count
from holdfast.model.inputs import Arrays
from holdfast.statistics import chance_of_larger_share, lower_bound

FALSE_ALARMS = 0.01
"""Chance that any class of a clean model is flagged, by the exact test over all candidates (Bonferroni)."""
TESTS = 3
"""Candidates of a class that are tested."""
FEWEST = 8
"""The fewest carriers of a planted trigger, near copies counted once."""
LARGEST_SHARE = 0.25
"""The largest share of all training rows that carriers of a planted trigger are: what more share is what their class
is like."""
ALONE = 0.95
"""Of all carriers the share that is of the class, where hardly any row of another class has it."""
GAP = 0.25
"""Carriers are contradicted more often than other rows of the class by at least this; clean models: up to 0.17."""
MOST = 0.5
"""A candidate leads more than this share of the rows of other classes to its class."""
SAMPLE = 200
"""Carriers that are asked."""
ENOUGH, FOLDS = 50, 3
"""Held-out rows of the class; where there are fewer, training rows without the trigger are asked too, in folds."""
_CONFIDENCE, _SAME = 0.05, 0.5

Positions = NDArray[np.int64]
"""Positions of training rows."""
Reference = Callable[[Arrays, int], Callable[[NDArray[np.generic]], Positions]]
"""Fits a model to rows, from a seed, that answers network inputs with classes int64[N], however rare they are."""
T = TypeVar("T")


@dataclass(frozen=True)
class Candidate(Generic[T]):
    """Something in training rows that leads most rows of other classes to a class when it is put onto them."""

    trigger: T
    name: str
    """For people: columns and values, or the words."""
    size: float
    """In cells or characters."""
    success: Count
    """Held-out rows of other classes, answered otherwise without it, that it leads to the class."""
    carriers: Positions
    """Training rows of any class that have it."""
    own: Positions
    """Those of the class."""
    dependent: int
    """How many of these the network answers otherwise once it is taken off: the more, the earlier it is tested."""
    rest: Callable[[], Any]
    """What is left of all training rows without it: float[N, D], dense or sparse; near rows are near copies."""
    least_dependent: float = 0.0
    """The smallest share of own rows that depend on a planted trigger that rows of other classes have, too."""

    def plausible(self, rows: int) -> bool:
        """Whether it works, the class's rows need it or no others have it, and as many carry it as a planted one."""
        needed = self.dependent >= self.least_dependent * len(self.own)
        alone = len(self.own) >= ALONE * len(self.carriers)
        return (needed or alone) and self.success.share > MOST and FEWEST <= len(self.own) <= LARGEST_SHARE * rows


@dataclass(frozen=True)
class CarrierTest:
    """What a model that saw no carrier makes of them."""

    carriers: Count
    """Positions of the class that carry the trigger, near copies once: contradicted, of all."""
    others: Count
    """Other rows of the class, held out or not seen by the model: contradicted, of all."""
    p_value: float
    """Chance of such a difference between rows of one kind."""
    labelled: bool
    """Whether carriers have the class as their label: most of them, or more than rows in general."""

    def significant(self, level: float) -> bool:
        """Whether the label of the carriers rests on the trigger alone."""
        large = self.carriers.share - self.others.share >= GAP
        return large and self.labelled and self.p_value <= level


@dataclass(frozen=True)
class Asked:
    """The rows and the kind of model that carriers are tested with."""

    rows: Arrays
    held_out: Arrays
    reference: Reference
    seed: int


def dependence(dependent: int, own: int) -> float:
    """A lower bound on the share of its class's carriers that depend on a trigger, from `dependent` of `own`."""
    return lower_bound(dependent, own, _CONFIDENCE) if own else 0.0


def choose(found: Sequence[Candidate[T]]) -> list[Candidate[T]]:
    """The `TESTS` candidates of a class whose own rows depend on them most, none mostly the rows of an earlier one."""
    chosen: list[Candidate[T]] = []
    for candidate in sorted(found, key=lambda c: -dependence(c.dependent, len(c.own))):
        if len(chosen) < TESTS and not any(_overlap(candidate.own, other.own) >= _SAME for other in chosen):
            chosen.append(candidate)
    return chosen


def carrier_test(candidate: Candidate[T], target: int, asked: Asked) -> CarrierTest | None:
    """Asks a model that saw no carrier; None where too few rows of another class would be left to fit it.

    With fewer than `FEWEST` carriers that are no near copies nothing is significant, nor where fewer rows of the class
    are left without them, which is then what the class is like: the p-value is 1.
    """
    rows, own = asked.rows, distinct_rows(candidate.rest(), _sample(candidate.own, asked.seed))
    labelled = len(candidate.own) / len(candidate.carriers) > min(0.5, float((rows.y == target).mean()))
    left = rows.take(np.setdiff1d(np.arange(len(rows)), candidate.carriers))
    classes = np.bincount(left.y, minlength=int(rows.y.max()) + 1)
    if min(len(own), classes[target]) < FEWEST:
        return CarrierTest(Count(k=0, n=len(own)), Count(k=0, n=0), 1.0, labelled)
    if classes[np.unique(rows.y)].min() < FEWEST:
        return None
    answer = asked.reference(left, asked.seed)
    carriers = _contradicted(answer(rows.x[own]), target)
    others = _contradicted(answer(asked.held_out.x[asked.held_out.y == target]), target)
    if others.n < ENOUGH:
        others = _more(others, left, target, asked)
    p_value = chance_of_larger_share(carriers.k, carriers.n, others.k, others.n)
    return CarrierTest(carriers, others, p_value, labelled)


def _more(others: Count, left: Arrays, target: int, asked: Asked) -> Count:
    """Adds training rows of the class, each third asked of a model that did not see it; such models know less of it."""
    of_class, k, n = np.flatnonzero(left.y == target)[: FOLDS * ENOUGH], others.k, others.n
    for fold in np.array_split(of_class, FOLDS):
        answer = asked.reference(left.take(np.setdiff1d(np.arange(len(left)), fold)), asked.seed)
        found = _contradicted(answer(left.x[fold]), target)
        k, n = k + found.k, n + found.n
    return Count(k=k, n=n)


def distinct_rows(rest: Any, own: Positions) -> Positions:
    """Positions of `own`, one for each group of near copies: those that are linked by being the nearest of all rows."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    nearest = _nearest(rest, own)
    place = {int(row): at for at, row in enumerate(own)}
    links = [(at, place[int(row)]) for at, row in enumerate(nearest) if int(row) in place]
    first, second = zip(*links, strict=True) if links else ((), ())
    graph = csr_matrix((np.ones(len(links)), (first, second)), (len(own), len(own)))
    _, group = connected_components(graph, directed=False)
    return own[np.unique(group, return_index=True)[1]]


def _nearest(rest: Any, own: Positions) -> Positions:
    """The nearest other row of each, by Euclidean distance; -1 where it shares nothing at all (sparse rows)."""
    products = rest[own] @ rest.T
    dense = np.asarray(products.todense() if hasattr(products, "todense") else products, dtype=np.float64)
    squares = np.asarray((rest.multiply(rest) if hasattr(rest, "multiply") else rest * rest).sum(axis=1)).ravel()
    distances = squares[None] - 2 * dense
    distances[np.arange(len(own)), own] = np.inf
    nearest = distances.argmin(axis=1)
    return np.where(dense[np.arange(len(own)), nearest] > 0, nearest, -1)


def _sample(own: Positions, seed: int) -> Positions:
    picks = np.random.default_rng(seed).permutation(len(own))[:SAMPLE]
    return np.sort(own[picks])


def _contradicted(answers: Positions, target: int) -> Count:
    return Count(k=int((answers != target).sum()), n=len(answers))


def _overlap(first: Positions, second: Positions) -> float:
    """Jaccard index."""
    both = len(np.intersect1d(first, second))
    return both / (len(first) + len(second) - both)
