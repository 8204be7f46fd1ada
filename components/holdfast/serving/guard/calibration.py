"""What is known about users' queries: distances to training rows, and of held-out rows to any few queries.

A *far* query lies away from the training rows: foreign data, noise, mixtures. A *near* one lies close to what the
same client asked shortly before: steps of an attack around one row, synthetic neighbours. Rows of some classes lie
further apart than those of others, so a distance is judged by what is usual in the class that the model gives the row:
a client who only asks about one kind of thing is no exception by that.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from holdfast.serving.guard.tails import Groups, Tails, groups_of, tail_bounds

FeatureRows = NDArray[np.float32]
"""float32[N, F]: activations before the last layer, scaled columns, or logits."""
Codes = NDArray[np.uint8]
"""uint8[...]: distances between sketches on a scale of 256 steps, equal ratios apart; 0: no distance worth the name."""
Sketches = NDArray[np.int8]
"""int8[N, <= 32]: features, turned to few dimensions and rounded."""
NEIGHBOURS = 5
REFERENCE, FAR_ROWS, NEAR_ROWS, DIMENSIONS = 3_000, 20_000, 2_000, 32
"""Most training rows, held-out rows for far and for near, and dimensions of a sketch."""
LEAST_ROWS = 100
"""Classes with fewer calibration rows are judged together."""
CONFIDENCE = 0.99
"""That the calibration rows, as they were drawn, do not make the tables too small."""
FEWEST, LEAST_TO_SCALE = 40, 20
"""Held-out rows that a calibration needs, and those of a class that has a scale of its own."""
_TO_SCALE, _USUAL, _AT_ONCE = 4, 0.9, 1_000
_STEPS_PER_DOUBLING = 24.0
_FULL = 127


@dataclass(frozen=True)
class Samples:
    """Rows as the model sees them."""

    features: FeatureRows
    labels: NDArray[np.int64]
    """int64[N]: the classes that the model gives them."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The rows at these positions."""
        return type(self)(self.features[rows], self.labels[rows])


@dataclass(frozen=True)
class Sketcher:
    """Turns features into sketches whose distances are about theirs."""

    turn: NDArray[np.float32]
    """float32[F, D]."""
    scale: float
    """Of one step of a sketch."""

    @classmethod
    def of(cls, features: FeatureRows, seed: int) -> Self:
        """For features like these; D is 32, or F where that is less and nothing is turned."""
        width = features.shape[1]
        if width <= DIMENSIONS:
            turn = np.eye(width, dtype=np.float32)
        else:
            chance = np.random.default_rng(seed)
            turn = (chance.standard_normal((width, DIMENSIONS)) / np.sqrt(DIMENSIONS)).astype(np.float32)
        most = float(np.quantile(np.abs(features @ turn), 0.999)) or 1.0
        return cls(turn, most / _FULL)

    def __call__(self, features: FeatureRows) -> Sketches:
        """Sketches of features."""
        found: Sketches = np.clip(np.rint(features @ self.turn / self.scale), -_FULL, _FULL).astype(np.int8)
        return found


@dataclass(frozen=True)
class ClassScale:
    """What is usual in each class: rows of some classes lie further from their neighbours than those of others."""

    middle: NDArray[np.float64]
    """float64[classes]: median of the distances."""
    spread: NDArray[np.float64]
    """float64[classes]: from there to the 90 % quantile."""

    @classmethod
    def of(cls, found: NDArray[np.float64], labels: NDArray[np.int64], classes: int) -> Self:
        """From the distances of some held-out rows; a class with few of them has the scale of all together."""
        own = [found[labels == label] for label in range(classes)]
        parts = [part if len(part) >= LEAST_TO_SCALE else found for part in own]
        middle = np.array([np.median(part) for part in parts])
        spread = np.array([np.quantile(part, _USUAL) for part in parts]) - middle
        return cls(middle, np.maximum(spread, 1e-6))

    def __call__(self, found: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Distances in units of what is usual in the class that the model gives each row."""
        return (found - self.middle[labels]) / self.spread[labels]


@dataclass(frozen=True)
class Far:
    """How far held-out rows lie from training rows."""

    reference: FeatureRows
    """float32[R, F] of training rows."""
    scale: ClassScale
    scores: NDArray[np.float64]
    """float64[n], rising: of held-out rows that did not make the scale."""
    tails: Tails

    def p_values(self, samples: Samples) -> NDArray[np.float64]:
        """float64[N]: bounds on the chance that a user's row lies so far away."""
        scores = self.scale(distances(samples.features, self.reference), samples.labels)
        found: NDArray[np.float64] = self.tails[len(self.scores) - np.searchsorted(self.scores, scores)]
        return found


@dataclass(frozen=True)
class Near:
    """Held-out rows, to see how near a user's row comes by chance to what a client asked before."""

    rows: Sketches
    """int8[M, D], one group after the other."""
    starts: NDArray[np.int64]
    """int64[groups + 1]: where the rows of each group begin, and where the last ends."""
    tails: tuple[Tails, ...]

    def p_value(self, group: int, code: int, nearest: Codes) -> float:
        """A bound on the chance that a user's row of that group comes so near.

        Args:
            group: Of the query.
            code: How near the query comes to the client's earlier ones.
            nearest: uint8[M], how near each of `rows` comes to them.
        """
        rows = nearest[self.starts[group] : self.starts[group + 1]]
        return float(self.tails[group][np.count_nonzero(rows <= code)])


@dataclass(frozen=True)
class Calibration:
    """All that the guard knows about the users of one model."""

    groups: Groups
    far: Far
    near: Near
    sketcher: Sketcher


def calibrate(reference: Samples, held_out: Samples, classes: int, *, seed: int, delta: float) -> Calibration:
    """What the guard needs, from training rows and from held-out rows that the training did not see.

    With probability at least 1 - delta over the held-out rows every p-value of `Far` is valid; and those of `Near` with
    the same probability for each set of earlier queries.
    """
    chance = np.random.default_rng(seed)
    reference, held_out = _some(reference, REFERENCE, chance), _some(held_out, FAR_ROWS, chance)
    groups = groups_of(held_out.labels, classes, least=LEAST_ROWS)
    sketcher = Sketcher.of(held_out.features, seed)
    far = _far(reference, held_out, classes, delta)
    return Calibration(groups, far, _near(sketcher, held_out, groups, delta), sketcher)


def distances(features: FeatureRows, reference: FeatureRows) -> NDArray[np.float64]:
    """float64[N]: mean distance of each row to its nearest rows of the reference."""
    own, k = np.einsum("nf,nf->n", features, features), min(NEIGHBOURS, len(reference))
    squares = np.einsum("rf,rf->r", reference, reference) - 2 * (features @ reference.T)
    nearest = np.partition(squares, k - 1, axis=1)[:, :k] + own[:, None]
    found: NDArray[np.float64] = np.sqrt(np.maximum(nearest, 0)).mean(1, dtype=np.float64)
    return found


def codes(left: Sketches, right: Sketches) -> Codes:
    """uint8[N, M]: distances between sketches."""
    a, b = left.astype(np.float32), right.astype(np.float32)
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T)  # exact: whole numbers below 2^24
    found = np.log2(1 + squares) * (_STEPS_PER_DOUBLING / 2)
    code: Codes = np.minimum(found, 255).astype(np.uint8)
    return code


def _far(reference: Samples, held_out: Samples, classes: int, delta: float) -> Far:
    parts = range(0, len(held_out), _AT_ONCE)
    found = np.concatenate([distances(held_out.features[i : i + _AT_ONCE], reference.features) for i in parts])
    few = len(held_out) // _TO_SCALE
    scale = ClassScale.of(found[:few], held_out.labels[:few], classes)
    scores = np.sort(scale(found[few:], held_out.labels[few:]))
    return Far(reference.features, scale, scores, tail_bounds(len(scores), delta))


def _near(sketcher: Sketcher, held_out: Samples, groups: Groups, delta: float) -> Near:
    rows = held_out.take(np.arange(min(NEAR_ROWS, len(held_out))))
    of = groups[rows.labels]
    order, count = np.argsort(of, kind="stable"), int(groups.max()) + 1
    starts = np.searchsorted(of[order], np.arange(count + 1))
    tails = tuple(tail_bounds(int(n), delta / count) for n in np.diff(starts))
    return Near(sketcher(rows.features[order]), starts, tails)


def _some(samples: Samples, most: int, chance: np.random.Generator) -> Samples:
    return samples.take(chance.permutation(len(samples))[:most])
